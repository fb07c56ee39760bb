"""The request schemas. Responses use the types of the ``openai`` package."""
