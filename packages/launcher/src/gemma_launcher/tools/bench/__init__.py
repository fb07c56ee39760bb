"""``gemma-triton bench``: benchmarks an OpenAI-compatible server under load."""
