"""Which of several Triton servers runs a request."""
