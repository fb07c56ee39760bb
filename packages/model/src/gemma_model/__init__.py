"""Gemma 3n on Triton: prompt, media, engine, backend."""
