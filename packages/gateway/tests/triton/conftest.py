"""A small gRPC server with Triton's protocol, and the client in front of it.

What the real Triton does in each of these cases is the end-to-end tests' matter.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from packages.gateway.tests.conftest import END, INFO
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gemma_gateway.triton_client import TritonClient
from gemma_wire import Chunk, ChunkBatch, Message, ModelInfo, Request, TokenizerInfo, Tokens

ASK = Request(
    messages=(Message(role="user", content="Hi"),), images=(b"one", b"two"), max_tokens=5, stream=True
)
Step = Chunk | ModelInfo | TokenizerInfo | Tokens | str | asyncio.Event


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Plays ``described`` for a description and ``script`` for everything else.

    A string is an error in the stream; an event is waited for; the end of the script ends the stream.
    A subscription brings what is put into ``batches``; ``None`` ends it.
    """

    def __init__(self) -> None:
        self.script: list[Step] = [Chunk(text="Hello"), Chunk(text=" world"), END]
        self.described: list[Step] = [INFO]
        self.live: list[asyncio.Event] = []
        self.asked: list[Any] = []
        self.subscriptions: list[str] = []
        self.subscribed = 0
        self.batches: asyncio.Queue[ChunkBatch | str | None] = asyncio.Queue()
        self.traceparents: list[str] = []
        self.running = 0

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.running += 1
        try:
            async for request in requests:
                if options(request).get("op") == "subscribe":
                    async for step in self._subscribe(options(request)["subscription"]):
                        yield step
                    return
                self.asked.append(request)
                metadata = dict(context.invocation_metadata())
                if not is_describe(request) and "traceparent" in metadata:
                    self.traceparents.append(metadata["traceparent"])
                for step in self.described if is_describe(request) else self.script:
                    if isinstance(step, asyncio.Event):
                        await step.wait()
                    else:
                        yield response(step)
        finally:
            self.running -= 1

    async def _subscribe(self, name: str) -> AsyncIterator[Any]:
        self.subscriptions.append(name)
        self.subscribed += 1
        try:
            while (step := await self.batches.get()) is not None:
                yield response(step)
        finally:
            self.subscribed -= 1

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        for event in self.live:
            await event.wait()
        return service_pb2.ServerLiveResponse(live=True)


def is_describe(request: Any) -> bool:
    return any(b'"describe"' in content for content in request.raw_input_contents)


def options(request: Any) -> dict[str, Any]:
    """The options of a request."""
    for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.name == "options":
            given: dict[str, Any] = json.loads(content[4:])
            return given
    return {}


def response(step: ChunkBatch | Chunk | ModelInfo | TokenizerInfo | Tokens | str) -> Any:
    if isinstance(step, str):
        return service_pb2.ModelStreamInferResponse(error_message=step)
    answer = service_pb2.ModelInferResponse()
    for name, array in step.to_tensors().items():
        answer.outputs.add(name=name, datatype="BYTES", shape=[1])
        answer.raw_output_contents.append(struct.pack("<I", len(array[0])) + array[0])
    return service_pb2.ModelStreamInferResponse(infer_response=answer)


@asynccontextmanager
async def listening(triton: FakeTriton, *others: str) -> AsyncIterator[tuple[str, Any]]:
    """Listens on 127.0.0.1, and on the same port of other addresses."""
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    for other in others:
        server.add_insecure_port(f"{other}:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", server
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected(*targets: str) -> AsyncIterator[TritonClient]:
    engine = TritonClient(targets, describe_seconds=1)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
async def target(triton: FakeTriton) -> AsyncIterator[str]:
    async with listening(triton) as (target, _):
        yield target


@pytest.fixture
async def engine(target: str) -> AsyncIterator[TritonClient]:
    async with connected(target) as engine:
        yield engine


async def answer(engine: TritonClient) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(ASK, "req-1")]
