"""JSON schemas: what of them a grammar enforces, and whether an answer fits."""
