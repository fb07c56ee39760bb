"""The native engine, with continuous batching over fixed cache slots, and one over ``transformers``.

Each is imported only when it is used, because it imports torch.
"""

from pathlib import Path

from gemma_model.engine_types import Engine
from gemma_model.settings import Settings


def create_engine(folder: Path, settings: Settings) -> Engine:
    """The engine that the settings name, with the checkpoint of this folder loaded.

    Raises:
        gemma_wire.InvalidRequest: the checkpoint or a setting is not supported.
    """
    if settings.engine == "native":
        from gemma_model.engine.model_loader import start_engine  # noqa: PLC0415

        return start_engine(folder, settings)
    from gemma_model.engine.transformers_engine import TransformersEngine  # noqa: PLC0415

    return TransformersEngine(folder, settings)


def leave_cores_to_engine(settings: Settings) -> None:
    """Make PyTorch use one core in each thread that has not computed yet; the engine's thread has.

    A second OpenMP thread pool on the same cores makes the workers of the engine sleep between its loops.
    (OpenMP decides at the first loop of each thread how many cores it uses.)
    """
    if settings.engine == "native":
        import torch  # noqa: PLC0415

        torch.set_num_threads(1)
