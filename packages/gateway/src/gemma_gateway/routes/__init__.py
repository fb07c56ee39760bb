"""Thin handlers, one file per family of endpoints."""
