"""Structured output: JSON schemas, regular expressions, grammars and tool calls that constrain the output."""
