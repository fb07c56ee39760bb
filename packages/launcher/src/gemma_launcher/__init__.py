"""Finds, starts, watches and stops tritonserver, the gateway and the playground."""
