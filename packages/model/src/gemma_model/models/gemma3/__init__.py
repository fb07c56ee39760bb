"""Gemma 3: the text decoder, of text models and of the text part of larger ones."""
