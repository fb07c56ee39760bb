"""``gemma-triton bench``: measures an OpenAI-compatible server under load."""
