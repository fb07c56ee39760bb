"""Finds, starts, watches and stops tritonserver and the gateway."""
