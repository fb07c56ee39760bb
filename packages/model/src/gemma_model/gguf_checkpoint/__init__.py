"""A GGUF file as a checkpoint: a small folder with the JSON files that the other modules read."""

from gemma_model.gguf_checkpoint.folder import prepare_folder

__all__ = ["prepare_folder"]
