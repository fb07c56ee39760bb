"""Chat completions: an OpenAI request as the model's, the model's chunks as OpenAI's."""
