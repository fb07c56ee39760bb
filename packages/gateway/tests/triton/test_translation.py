"""The conversion of errors and tensors between Triton's form and ours."""

import struct

import grpc  # type: ignore[import-untyped]
import pytest

from gemma_gateway.triton_server import TimedOut, from_message, from_status, to_inputs
from gemma_wire import (
    ContextLengthExceeded,
    EngineFailure,
    InvalidRequest,
    Overloaded,
    Request,
    Unavailable,
    WireError,
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("temperature: too hot [invalid_value]", InvalidRequest),
        ("messages: 9 > 5 [context_length_exceeded]", ContextLengthExceeded),
        (Overloaded("full").to_line(), Overloaded),
        (Unavailable("loading").to_line(), Unavailable),
        (EngineFailure("the model is not ready for this").to_line(), EngineFailure),
        ("Stub process 'gemma3n_0_0' is not healthy.", Unavailable),
        ("Request for unknown model: 'gemma3n' is not found", Unavailable),
        ("Request for unknown model: 'gemma3n' has no available versions", Unavailable),
        (
            "Server is stopping, scheduler for model has stopped accepting new inference requests",
            Unavailable,
        ),
        ("[StatusCode.INTERNAL] something else", EngineFailure),
    ],
)
def test_messages(text: str, kind: type[WireError]) -> None:
    assert type(from_message(text)) is kind


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_statuses(code: grpc.StatusCode) -> None:
    kind = TimedOut if code is grpc.StatusCode.DEADLINE_EXCEEDED else Unavailable
    assert type(from_status(code)) is kind


def test_inputs_carry_any_bytes() -> None:
    pictures = (b"", b"\x00\xff" * 100, "ä".encode())
    inputs = to_inputs(Request(prompt="x", images=pictures))
    (images,) = [tensor for tensor in inputs if tensor.name() == "images"]
    expected = b"".join(struct.pack("<I", len(picture)) + picture for picture in pictures)
    assert images._get_content() == expected
