"""The checkpoint to serve: resolved, downloaded and validated."""
