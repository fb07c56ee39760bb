"""Bytes → what a tower takes."""
