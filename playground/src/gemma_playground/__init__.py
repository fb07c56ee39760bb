"""A browser playground for any OpenAI-compatible server."""
