"""JSON schemas: rewriting for the grammar compiler, and validation of outputs."""
