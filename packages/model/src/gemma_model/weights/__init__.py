"""The weights of a checkpoint: its file formats, its tensors by name, and what layers multiply with."""

from gemma_model.weights.named_weights import Weights
from gemma_model.weights.open_weights import open_weights

__all__ = ["Weights", "open_weights"]
