"""Structured output: JSON schemas, regular expressions, grammars and tool calls that the output must fit."""
