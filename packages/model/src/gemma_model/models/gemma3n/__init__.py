"""Gemma 3n: what is specific to this family. The vision and audio towers are those of transformers."""
