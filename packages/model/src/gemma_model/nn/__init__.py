"""Gemma 3n itself: the text decoder is ours, the vision and audio towers are transformers' own."""
