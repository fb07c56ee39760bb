"""``gemma-triton chat``: chat with a model in the terminal."""
