"""The native engine: continuous batching over fixed cache slots."""
