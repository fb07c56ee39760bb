"""Responses: a request as the model's, the model's chunks as the events of a response."""
