"""The weights of a checkpoint: its file formats, its tensors by name, and what layers multiply with."""

from gemma_model.weights.named_weights import Weights, bare_name
from gemma_model.weights.open_weights import open_weights

__all__ = ["Weights", "bare_name", "open_weights"]
