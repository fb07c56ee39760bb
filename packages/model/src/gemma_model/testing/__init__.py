"""Test helpers: a tiny checkpoint with random weights, which the launcher can serve too."""
