"""``/version``, ``/load``, ``/tokenizer_info``, and vLLM's fields in ``/v1/models``."""

import asyncio
from importlib.metadata import version

import httpx
from packages.gateway.tests.conftest import END, INFO, MODEL, FakeEngine, chat, post, until

from gemma_wire import Chunk


async def test_version(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": version("gemma-gateway")}


async def test_load_counts_generations(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    go_on = asyncio.Event()
    engine.script = [Chunk(text="a"), go_on, END]
    asked = [asyncio.create_task(post(client, chat())) for _ in range(3)]
    await until(lambda: engine.running == 3)
    assert (await client.get("/load")).json() == {"server_load": 3}
    go_on.set()
    await asyncio.gather(*asked)
    assert (await client.get("/load")).json() == {"server_load": 0}


async def test_tokenizer_info(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/tokenizer_info")).json()
    assert answer == {"eos_token": "<eos>", "chat_template": "{{ messages }}"}


async def test_models_report_their_context_length(client: httpx.AsyncClient) -> None:
    models = (await client.get("/v1/models")).json()["data"]
    assert [(model["id"], model["root"], model["parent"], model["max_model_len"]) for model in models] == [
        (MODEL, MODEL, None, INFO.context_length),
        ("gemma3n", MODEL, None, INFO.context_length),
    ]
    assert (await client.get("/v1/models/gemma3n")).json() == models[1]
