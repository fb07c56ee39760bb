"""Requests and responses over gRPC, with one server and with several."""

import asyncio
from contextlib import aclosing

import grpc  # type: ignore[import-untyped]
import pytest
from packages.gateway.tests.conftest import END, INFO, until
from packages.gateway.tests.triton.conftest import (
    ASK,
    FakeTriton,
    Step,
    answer,
    connected,
    listening,
    options,
)
from tritonclient.grpc import service_pb2_grpc

import gemma_gateway.triton_client as subject
from gemma_gateway.triton_client import TritonClient
from gemma_gateway.triton_server import TimedOut
from gemma_wire import Chunk, InvalidRequest, Options, Request, TokenizerInfo, Tokens, Unavailable, WireError
from gemma_wire.tensors import MODEL

TOKENS = Tokens(token_ids=(2, 5), text="<bos>x", pieces=("<bos>", "x"), context_length=9)


async def test_generate(engine: TritonClient, triton: FakeTriton) -> None:
    assert await answer(engine) == [Chunk(text="Hello"), Chunk(text=" world"), END]
    (request,) = triton.asked
    assert (request.model_name, request.id) == (MODEL, "req-1")
    names = {tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in request.inputs}
    assert names == {
        "messages": ("BYTES", [1]),
        "images": ("BYTES", [2]),
        "max_tokens": ("INT32", [1]),
        "stream": ("BOOL", [1]),
        "options": ("BYTES", [1]),
    }
    assert options(request).keys() <= {"subscription", "receiver"}


async def test_describe(engine: TritonClient) -> None:
    assert await engine.describe() == INFO


async def test_the_stream_of_a_report_is_read_to_its_end(engine: TritonClient, triton: FakeTriton) -> None:
    end = asyncio.Event()
    triton.described = [INFO, end]
    asked = asyncio.create_task(engine.describe())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asked), 0.2)
    assert triton.running == 1
    end.set()
    assert await asked == INFO


async def test_tokens(engine: TritonClient, triton: FakeTriton) -> None:
    triton.script = [TOKENS]
    assert await engine.tokens(Request(prompt="x", options=Options(op="tokenize"))) == TOKENS


async def test_tokenizer_info(engine: TritonClient, triton: FakeTriton) -> None:
    triton.script = [TokenizerInfo(config={"eos_token": "<eos>"})]
    assert await engine.tokenizer_info() == TokenizerInfo(config={"eos_token": "<eos>"})


async def test_tokens_have_a_time_limit(
    engine: TritonClient, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "TOKENS_SECONDS", 0.2)
    triton.script = [asyncio.Event()]
    with pytest.raises(TimedOut, match="did not respond in time"):
        await engine.tokens(Request(prompt="x", options=Options(op="tokenize")))


async def test_describe_has_a_time_limit(engine: TritonClient, triton: FakeTriton) -> None:
    triton.described = [asyncio.Event()]
    with pytest.raises(TimedOut, match="did not respond in time"):
        await engine.describe()


async def test_describe_without_an_answer(engine: TritonClient, triton: FakeTriton) -> None:
    triton.described = []
    with pytest.raises(Unavailable):
        await engine.describe()


async def test_error_in_the_stream(engine: TritonClient, triton: FakeTriton) -> None:
    triton.script = [InvalidRequest("too odd", "images[1]").to_line()]
    with pytest.raises(InvalidRequest, match="too odd") as caught:
        await answer(engine)
    assert caught.value.field == "images[1]"


@pytest.mark.parametrize("script", [[], [Chunk(text="Hello")]])
async def test_a_stream_that_ends_early(engine: TritonClient, triton: FakeTriton, script: list[Step]) -> None:
    triton.script = script
    with pytest.raises(Unavailable, match="before the response was complete"):
        await answer(engine)


async def test_closing_the_generator_cancels_the_request(engine: TritonClient, triton: FakeTriton) -> None:
    triton.script = [Chunk(text="a"), asyncio.Event()]
    async with aclosing(engine.generate(ASK, "")) as chunks:
        assert await anext(chunks) == Chunk(text="a")
        assert triton.running == 1
    await until(lambda: triton.running == 0, seconds=1)


async def test_cancelling_the_consumer_cancels_the_request(engine: TritonClient, triton: FakeTriton) -> None:
    triton.script = [asyncio.Event()]
    task = asyncio.create_task(answer(engine))
    await until(lambda: triton.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: triton.running == 0, seconds=1)


async def test_no_server_is_listening() -> None:
    async with connected("127.0.0.1:1") as engine:
        for attempt in (engine.describe(), answer(engine)):
            with pytest.raises(Unavailable, match="cannot be reached"):
                await attempt


async def test_a_server_that_fails_during_a_stream(triton: FakeTriton) -> None:
    triton.script = [Chunk(text="a"), asyncio.Event()]
    async with listening(triton) as (target, server), connected(target) as engine:
        chunks = engine.generate(ASK, "")
        await anext(chunks)
        await server.stop(None)
        with pytest.raises(Unavailable):
            await anext(chunks)


async def test_a_restarted_server_is_found_again(triton: FakeTriton) -> None:
    async with listening(triton) as (target, _), connected(target) as engine:
        await answer(engine)
    port = int(target.rpartition(":")[2])
    async with connected(target) as engine:
        with pytest.raises(Unavailable):
            await answer(engine)
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
        assert server.add_insecure_port(target) == port
        await server.start()

        async def back() -> bool:
            try:
                return len(await answer(engine)) == 3
            except Unavailable:
                return False

        async with asyncio.timeout(10):
            while not await back():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await server.stop(None)


@pytest.mark.parametrize("trouble", ["refuses", "unhealthy"])
async def test_an_unavailable_server_is_skipped(triton: FakeTriton, trouble: str) -> None:
    sick = FakeTriton()
    sick.script = sick.described = ["Stub process 'gemma3n_0_0' is not healthy."]
    async with listening(triton) as (good, _), listening(sick) as (unhealthy, _):
        bad = unhealthy if trouble == "unhealthy" else "127.0.0.1:1"
        async with connected(bad, good) as engine:
            for _ in range(3):
                assert len(await answer(engine)) == 3
                assert await engine.describe() == INFO
            triton.script = [TOKENS]
            for _ in range(2):
                assert await engine.tokens(Request(prompt="x", options=Options(op="tokenize"))) == TOKENS


@pytest.mark.parametrize(
    ("step", "error"),
    [
        pytest.param(Chunk(text="half"), Unavailable, id="an answer that was begun"),
        pytest.param(InvalidRequest("no", "prompt").to_line(), InvalidRequest, id="an invalid request"),
    ],
)
async def test_errors_that_are_not_retried_on_another_server(step: Step, error: type[WireError]) -> None:
    one, two = FakeTriton(), FakeTriton()
    one.script = two.script = [step]
    async with (
        listening(one) as (first, _),
        listening(two) as (second, _),
        connected(first, second) as engine,
    ):
        with pytest.raises(error):
            await answer(engine)
    assert len(one.asked) + len(two.asked) == 1
