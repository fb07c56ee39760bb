"""What the gateway accepts. Answers use the ``openai`` package's own types."""
