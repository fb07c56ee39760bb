"""Speculative decoding: tokens that may come next are guessed, and checked in one step of the model."""
