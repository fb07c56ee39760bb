"""Loads the model of a checkpoint. This is where a model family would be chosen; so far there is one."""

from pathlib import Path

import torch

from gemma_model.checkpoint import read_config
from gemma_model.device import resolve_dtype
from gemma_model.models.gemma3n import loading
from gemma_model.models.model import LoadedModel
from gemma_model.settings import Settings


def load_model(folder: Path, settings: Settings, device: torch.device) -> LoadedModel:
    """Load the checkpoint of a folder onto a device.

    Raises:
        InvalidRequest: when the checkpoint or a setting is not supported.
    """
    config = read_config(folder)
    return loading.load(folder, config, settings, device, resolve_dtype(settings.dtype, config))
