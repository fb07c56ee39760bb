"""Fields that the responses of all endpoints have in common."""

import hashlib
import time
import uuid
from dataclasses import dataclass

import gemma_wire as wire


@dataclass(frozen=True)
class ResponseBase:
    """The fields that every chunk of a response repeats.

    Args:
        id: of the response.
        created: Unix time, seconds.
        model: the id of the model that generates the response.
        system_fingerprint: see the function of the same name.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str

    @staticmethod
    def new(prefix: str, model: str, info: wire.ModelInfo) -> "ResponseBase":
        """The fields of a new response, whose id begins with ``prefix``."""
        return ResponseBase(f"{prefix}{uuid.uuid4().hex}", int(time.time()), model, system_fingerprint(info))


def system_fingerprint(info: wire.ModelInfo) -> str:
    """Changes when the model, the engine, the device or the dtype changes, and so the responses may."""
    text = "\n".join((info.model, info.engine, info.device, info.dtype, str(info.memory_bytes)))
    return f"fp_{hashlib.sha256(text.encode()).hexdigest()[:10]}"
