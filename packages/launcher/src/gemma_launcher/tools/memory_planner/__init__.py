"""``gemma-triton plan``: what of a model fits into so much memory, from its configuration alone."""
