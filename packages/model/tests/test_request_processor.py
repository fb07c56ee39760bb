import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma_model.checkpoint import Checkpoint, open_checkpoint
from gemma_model.engine_types import EngineSamplingParams
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_model.worker_pool import RequestAborted
from gemma_wire import (
    AudioPart,
    ContextLengthExceeded,
    ImagePart,
    InvalidRequest,
    Message,
    Options,
    Part,
    Request,
    TextPart,
)

from .media_files import png, wav


def test_the_checkpoint_has_its_limits_and_defaults(checkpoint: Checkpoint) -> None:
    assert checkpoint.defaults == EngineSamplingParams(temperature=1.0, top_k=64, top_p=0.95)
    assert checkpoint.eos_token_ids == {1, 9}
    assert (checkpoint.context_length, checkpoint.vocabulary) == (4096, 544)
    assert checkpoint.soft_tokens == {"image": 16, "audio": 188}


@pytest.mark.parametrize(("part", "field"), [(ImagePart(), "images"), (AudioPart(), "audio")])
def test_without_towers_media_are_refused_without_decoding(tiny: Path, part: Part, field: str) -> None:
    processor = RequestProcessor(open_checkpoint(tiny, text_only=True), Settings(towers="none"))
    media: dict[str, Any] = {field: (b"unreadable",)}
    with pytest.raises(
        InvalidRequest, match="with GEMMA_TOWERS=none, this server does not support"
    ) as caught:
        processor.process(Request(messages=(Message(role="user", content=(part,)),), **media))
    assert caught.value.field == field
    assert processor.process(Request(prompt="Hi")).engine_request.prompt.token_ids
    processor.close()


WITHOUT_TOWERS = """
import sys
from pathlib import Path
from gemma_model.checkpoint import open_checkpoint
from gemma_model.engine import create_engine
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings

folder, settings = Path(sys.argv[1]), Settings(towers="none", device="cpu")
processor = RequestProcessor(open_checkpoint(folder, text_only=True), settings)
create_engine(folder, settings).close()
processor.close()
print({"torch", "transformers", "timm", "torchvision"} & set(sys.modules))
"""


def test_without_towers_their_libraries_are_not_imported(tiny: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TOWERS, str(tiny)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert told.stdout == "{'torch'}\n"


def test_missing_parameters_are_the_checkpoints_defaults(
    processor: RequestProcessor, checkpoint: Checkpoint
) -> None:
    engine_request = processor.process(Request(prompt="Hi")).engine_request
    assert engine_request.sampling == checkpoint.defaults
    assert engine_request.max_tokens == 4096 - len(engine_request.prompt.token_ids)
    assert engine_request.stop_token_ids == checkpoint.eos_token_ids


def test_parameters_of_the_request_are_used(processor: RequestProcessor) -> None:
    options = Options(seed=4, top_k=0, min_tokens=2, ignore_eos=True)
    engine_request = processor.process(
        Request(prompt="Hi", max_tokens=5, temperature=0, top_p=0.5, options=options)
    ).engine_request
    assert engine_request.sampling == EngineSamplingParams(temperature=0, top_k=0, top_p=0.5, seed=4)
    assert (engine_request.max_tokens, engine_request.min_tokens, engine_request.stop_token_ids) == (
        5,
        2,
        frozenset(),
    )


def test_max_tokens_is_limited_by_the_context(processor: RequestProcessor) -> None:
    engine_request = processor.process(Request(prompt="Hi", max_tokens=10**6)).engine_request
    assert engine_request.max_tokens == 4096 - len(engine_request.prompt.token_ids)


def test_a_prompt_that_does_not_fit_states_both_numbers(processor: RequestProcessor) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"4096 tokens.* has 5\d\d\d tokens") as caught:
        processor.process(Request(messages=(Message(role="user", content="~" * 5000),)))
    assert caught.value.field == "messages"


@pytest.mark.parametrize(
    "request_",
    [
        Request(messages=(Message(role="user", content="~" * 5000),), max_tokens=10**6),
        Request(prompt="~" * 5000),
        Request(prompt="~" * 20_000_000),
        Request(options=Options(prompt_token_ids=(300,) * 4096)),
    ],
)
def test_the_overflow_message_has_the_words_that_clients_look_for(
    processor: RequestProcessor, request_: Request
) -> None:
    """LangChain and LiteLLM look into the sentence for them."""
    with pytest.raises(ContextLengthExceeded) as caught:
        processor.process(request_)
    assert "This model's maximum context length is 4096 tokens" in caught.value.message
    assert "prompt is too long" in caught.value.message


def test_a_prompt_that_cannot_fit_is_not_tokenized(processor: RequestProcessor) -> None:
    with pytest.raises(
        ContextLengthExceeded, match=r"maximum context length is 4096 tokens.*prompt is too long"
    ):
        processor.tokens(Request(prompt="~" * 20_000_000, options=Options(op="tokenize")))


def test_the_tokenizers_configuration(processor: RequestProcessor) -> None:
    config = processor.tokenizer_info.config
    assert (config["bos_token"], config["eos_token"], config["model_max_length"]) == ("<bos>", "<eos>", 4096)
    assert "<start_of_turn>" in config["chat_template"]


@pytest.mark.parametrize(
    ("files", "config"),
    [
        ({}, {"model_max_length": 4096}),
        ({"tokenizer_config.json": {"chat_template": "a"}}, {"chat_template": "a", "model_max_length": 4096}),
        ({"chat_template.json": {"chat_template": "b"}}, {"chat_template": "b", "model_max_length": 4096}),
    ],
)
def test_every_location_of_the_chat_template(
    checkpoint: Checkpoint, tmp_path: Path, files: dict[str, Any], config: dict[str, Any]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert replace(checkpoint, folder=tmp_path).tokenizer_config == config


@pytest.mark.parametrize("text", [" " * 20_000_000 + "y", "a" * 20_000_000])
def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised(
    processor: RequestProcessor, text: str
) -> None:
    with pytest.raises(ContextLengthExceeded, match="at least"):
        processor.process(Request(prompt="x" + text))


def test_a_tiny_temperature_is_greedy(processor: RequestProcessor) -> None:
    assert processor.process(Request(prompt="Hi", temperature=1e-38)).engine_request.sampling.temperature == 0


def test_no_image_is_decoded_after_a_disconnect(processor: RequestProcessor) -> None:
    with pytest.raises(RequestAborted):
        processor.process(
            Request(prompt="<image_soft_token>", images=(b"no picture",)), is_disconnected=lambda: True
        )


def test_images_replace_their_placeholders(processor: RequestProcessor) -> None:
    message = Message(role="user", content=(ImagePart(), ImagePart()))
    engine_request = processor.process(Request(messages=(message,), images=(png(), png()))).engine_request
    assert len(engine_request.prompt.spans) == 2


def test_images_and_audio_replace_their_placeholders(processor: RequestProcessor) -> None:
    message = Message(role="user", content=(AudioPart(), TextPart(text="and"), ImagePart()))
    processed = processor.process(Request(messages=(message,), images=(png(),), audio=(wav(),)))
    assert [span.media.modality for span in processed.engine_request.prompt.spans] == ["audio", "image"]


@pytest.fixture(scope="module")
def roomy(checkpoint: Checkpoint) -> Iterator[RequestProcessor]:
    """With four clips in a request."""
    processor = RequestProcessor(checkpoint, Settings(max_audio=4, model_name="served"))
    yield processor
    processor.close()


@pytest.mark.parametrize("raw", [False, True])
def test_long_audio_becomes_several_spans(roomy: RequestProcessor, raw: bool) -> None:
    message = Message(role="user", content=(AudioPart(), TextPart(text="and"), AudioPart()))
    asked: dict[str, Any] = (
        {"prompt": "<audio_soft_token>and<audio_soft_token>"} if raw else {"messages": (message,)}
    )
    prompt = roomy.process(Request(**asked, audio=(wav(70), wav(1)))).engine_request.prompt
    assert [span.media.modality for span in prompt.spans] == ["audio"] * 4
    with pytest.raises(
        InvalidRequest, match=r"needs 4 clips of at most 30 seconds, 752 tokens;.* is 3"
    ) as caught:
        roomy.process(Request(**asked, audio=(wav(100), wav(1))))
    assert caught.value.field == "audio[0]"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(prompt="<image_soft_token>" * 3, images=(b"x",) * 3), "images"),
        (Request(prompt="<image_soft_token>", images=(b"x",)), "images[0]"),
        (Request(prompt="x", images=(png(),)), "images"),
        (Request(prompt="x", audio=(wav(),)), "audio"),
        (Request(prompt="x", audio=(wav(),) * 2), "audio"),
        (Request(prompt="<audio_soft_token>", audio=(b"x",)), "audio[0]"),
        (Request(prompt="<audio_soft_token>", audio=(wav(60),)), "audio[0]"),
        (Request(messages=(Message(role="user", content=(AudioPart(),)),)), "audio"),
    ],
)
def test_unsupported_media_are_refused_by_name(
    processor: RequestProcessor, request_: Request, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        processor.process(request_)
    assert caught.value.field == field
