"""Which engine the settings name; each is imported only when it is wanted."""

from pathlib import Path

from gemma_model.protocol import Engine
from gemma_model.settings import Settings


def make_engine(folder: Path, settings: Settings) -> Engine:
    """An engine with the checkpoint of this folder loaded.

    Raises:
        gemma_wire.InvalidRequest: when the checkpoint or a setting cannot be honoured.
    """
    if settings.engine == "native":
        from gemma_model.engine.engine import NativeEngine  # noqa: PLC0415 - imports torch

        return NativeEngine(folder, settings)
    from gemma_model.reference import ReferenceEngine  # noqa: PLC0415 - imports torch and transformers

    return ReferenceEngine(folder, settings)


def leave_cores_to_engine(settings: Settings) -> None:
    """Make PyTorch use one core in every thread that has not computed yet; the engine's must have.

    A second pool of workers on the same cores makes those of the engine sleep between its loops. (A library
    with PyTorch's loops settles in each thread, at its first one, on how many cores it takes.)
    """
    if settings.engine == "native":
        import torch  # noqa: PLC0415

        torch.set_num_threads(1)
