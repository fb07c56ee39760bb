"""Child processes of ``gemma-triton serve``: started, monitored, restarted and stopped."""
