"""Logits → token ids."""
