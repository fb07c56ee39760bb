"""Anthropic's Messages API: its request as the model's, the model's chunks as its message and events."""
