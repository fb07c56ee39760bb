import io
import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gemma_model.checkpoint import Checkpoint, find_folder, open_checkpoint
from gemma_model.engine_types import EngineSamplingParams
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_model.worker_pool import ClientDisconnected
from gemma_wire import (
    AudioPart,
    ChoiceGrammar,
    ContextLengthExceeded,
    ImagePart,
    InvalidRequest,
    JsonGrammar,
    Message,
    Options,
    Part,
    Request,
    TextPart,
    Tool,
)


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return open_checkpoint(tiny)


@pytest.fixture(scope="module")
def processor(checkpoint: Checkpoint) -> Iterator[RequestProcessor]:
    settings = Settings(
        max_images=2, max_audio=1, max_num_seqs=4, model_name="served", max_grammar_bytes=5000
    )
    processor = RequestProcessor(checkpoint, settings)
    yield processor
    processor.close()


def _wav(seconds: float = 0.5) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * int(seconds * 16_000)))
    return buffer.getvalue()


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_checkpoint_says_what_it_needs(checkpoint: Checkpoint) -> None:
    assert checkpoint.defaults == EngineSamplingParams(temperature=1.0, top_k=64, top_p=0.95)
    assert checkpoint.eos_token_ids == {1, 9}
    assert (checkpoint.context_length, checkpoint.vocabulary) == (4096, 544)
    assert checkpoint.soft_tokens == {"image": 16, "audio": 188}


@pytest.mark.parametrize(("part", "field"), [(ImagePart(), "images"), (AudioPart(), "audio")])
def test_without_towers_media_are_refused_unread(tiny: Path, part: Part, field: str) -> None:
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


def test_without_towers_their_libraries_take_neither_time_nor_memory(tiny: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TOWERS, str(tiny)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert told.stdout == "{'torch'}\n"


def test_what_the_request_leaves_open_is_the_checkpoints(
    processor: RequestProcessor, checkpoint: Checkpoint
) -> None:
    engine_request = processor.process(Request(prompt="Hi")).engine_request
    assert engine_request.sampling == checkpoint.defaults
    assert engine_request.max_tokens == 4096 - len(engine_request.prompt.token_ids)
    assert engine_request.stop_token_ids == checkpoint.eos_token_ids


def test_what_the_request_says_is_done(processor: RequestProcessor) -> None:
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


def test_max_tokens_ends_where_the_context_ends(processor: RequestProcessor) -> None:
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
def test_an_overflow_is_told_in_the_words_that_clients_look_for(
    processor: RequestProcessor, request_: Request
) -> None:
    """LangChain and LiteLLM look into the sentence for them."""
    with pytest.raises(ContextLengthExceeded) as caught:
        processor.process(request_)
    assert "This model's maximum context length is 4096 tokens" in caught.value.message
    assert "prompt is too long" in caught.value.message


def test_a_prompt_that_cannot_fit_is_not_tokenised_either(processor: RequestProcessor) -> None:
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
def test_wherever_the_chat_template_is(
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


def test_a_temperature_next_to_nothing_is_greedy(processor: RequestProcessor) -> None:
    assert processor.process(Request(prompt="Hi", temperature=1e-38)).engine_request.sampling.temperature == 0


def test_no_picture_is_decoded_for_a_client_that_has_left(processor: RequestProcessor) -> None:
    with pytest.raises(ClientDisconnected):
        processor.process(
            Request(prompt="<image_soft_token>", images=(b"no picture",)), is_disconnected=lambda: True
        )


def test_pictures_take_their_places(processor: RequestProcessor) -> None:
    message = Message(role="user", content=(ImagePart(), ImagePart()))
    engine_request = processor.process(Request(messages=(message,), images=(_png(), _png()))).engine_request
    assert len(engine_request.prompt.spans) == 2


def test_pictures_and_sounds_take_their_places(processor: RequestProcessor) -> None:
    message = Message(role="user", content=(AudioPart(), TextPart(text="and"), ImagePart()))
    processed = processor.process(Request(messages=(message,), images=(_png(),), audio=(_wav(),)))
    assert [span.media.modality for span in processed.engine_request.prompt.spans] == ["audio", "image"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(prompt="<image_soft_token>" * 3, images=(b"x",) * 3), "images"),
        (Request(prompt="<image_soft_token>", images=(b"x",)), "images[0]"),
        (Request(prompt="x", images=(_png(),)), "images"),
        (Request(prompt="x", audio=(_wav(),)), "audio"),
        (Request(prompt="x", audio=(_wav(),) * 2), "audio"),
        (Request(prompt="<audio_soft_token>", audio=(b"x",)), "audio[0]"),
        (Request(prompt="<audio_soft_token>", audio=(_wav(60),)), "audio[0]"),
        (Request(messages=(Message(role="user", content=(AudioPart(),)),)), "audio"),
    ],
)
def test_media_that_cannot_be_taken_are_refused_by_name(
    processor: RequestProcessor, request_: Request, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        processor.process(request_)
    assert caught.value.field == field


def test_every_option_reaches_the_generation(processor: RequestProcessor, checkpoint: Checkpoint) -> None:
    options = Options(
        model="served",
        prompt_token_ids=(2, 300),
        min_p=0.1,
        repetition_penalty=1.1,
        frequency_penalty=0.2,
        presence_penalty=-0.3,
        logit_bias={5: -100},
        stop=("x",),
        stop_token_ids=(300,),
        n=3,
        logprobs=2,
        prompt_logprobs=4,
        logprob_token_ids=(7, 300),
        return_token_ids=True,
        continuous_usage_stats=True,
        skip_special_tokens=False,
    )
    processed = processor.process(Request(options=options))
    engine_request, output_options = processed.engine_request, processed.output_options
    assert engine_request.prompt.token_ids == output_options.prompt == (2, 300)
    assert engine_request.sampling == checkpoint.defaults.model_copy(
        update={
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "frequency_penalty": 0.2,
            "presence_penalty": -0.3,
            "logit_bias": {5: -100},
        }
    )
    assert engine_request.stop_token_ids == output_options.stop_token_ids == {1, 9, 300}
    assert (engine_request.n, engine_request.logprobs, engine_request.prompt_logprobs) == (3, 2, 4)
    assert engine_request.logprob_token_ids == (7, 300)
    assert (output_options.n, output_options.logprobs, output_options.token_ids, output_options.stop) == (
        3,
        True,
        True,
        ("x",),
    )
    assert (output_options.prompt_logprobs, output_options.usage, output_options.special) == (
        True,
        True,
        True,
    )
    assert engine_request.constraint is None


def test_grammars_and_tools_become_constraints(processor: RequestProcessor) -> None:
    tool, grammar = Tool(name="f"), ChoiceGrammar(choices=("yes",))
    messages = (Message(role="user", content="Hi"),)
    with_grammar = processor.process(Request(prompt="x", options=Options(grammar=grammar)))
    with_tools = processor.process(Request(messages=messages, options=Options(tools=(tool,))))
    both = processor.process(Request(messages=messages, options=Options(tools=(tool,), grammar=grammar)))
    assert [processed.output_options.tools for processed in (with_grammar, with_tools, both)] == [
        False,
        True,
        True,
    ]
    assert [processed.output_options.call_first for processed in (with_grammar, with_tools, both)] == [
        True,
        False,
        True,
    ]
    assert all(
        processed.engine_request.constraint is not None for processed in (with_grammar, with_tools, both)
    )


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (Options(model="another"), "options.model"),
        (Options(n=5), "options.n"),
        (Options(logit_bias={544: 1.0}), "options.logit_bias"),
        (Options(stop_token_ids=(544,)), "options.stop_token_ids"),
        (Options(logprobs=0, logprob_token_ids=(544,)), "options.logprob_token_ids"),
        (Options(logprob_token_ids=(5,)), "options.logprob_token_ids"),
        (Options(logprobs=0, logprob_token_ids=tuple(range(21))), "options.logprob_token_ids"),
        (Options(ignore_eos=True, grammar=ChoiceGrammar(choices=("a",))), "options.ignore_eos"),
        (Options(grammar=JsonGrammar(json_schema={"not": {}})), "options.grammar"),
        (Options(grammar=ChoiceGrammar(choices=("a" * 6000,))), "options.grammar"),
    ],
)
def test_what_is_beyond_the_model_is_refused_by_name(
    processor: RequestProcessor, options: Options, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        processor.process(Request(prompt="x", options=options))
    assert caught.value.field == field


@pytest.mark.parametrize(("top", "n", "taken"), [(20, 1, 3120), (20, 3, 1040), (0, 4, 4095)])
def test_log_probabilities_of_a_prompt_have_a_limit(
    processor: RequestProcessor, top: int, n: int, taken: int
) -> None:
    """65,536 of them, whatever the context holds."""

    def ask(length: int) -> None:
        options = Options(prompt_token_ids=(300,) * length, prompt_logprobs=top, n=n)
        processor.process(Request(options=options))

    ask(taken)
    if taken < 4095:
        with pytest.raises(InvalidRequest, match=r"log probabilities .*; the limit is 65,536") as caught:
            ask(taken + 1)
        assert caught.value.field == "options.prompt_logprobs"


def test_many_log_probabilities_of_few_tokens_are_fine(processor: RequestProcessor) -> None:
    options = Options(logprobs=0, logprob_token_ids=tuple(range(128)))
    processed = processor.process(Request(prompt="x", max_tokens=512, options=options))
    assert len(processed.engine_request.logprob_token_ids) == 128


def test_the_last_turn_may_be_left_open(processor: RequestProcessor) -> None:
    messages = (Message(role="user", content="Count."), Message(role="assistant", content="One, "))
    options = Options(op="tokenize", continue_final_message=True)
    text = processor.tokens(Request(messages=messages, options=options)).text
    assert text == "<bos><start_of_turn>user\nCount.<end_of_turn>\n<start_of_turn>model\nOne,"
    options = Options(op="tokenize", add_generation_prompt=False)
    text = processor.tokens(Request(messages=messages[:1], options=options)).text
    assert text == "<bos><start_of_turn>user\nCount.<end_of_turn>\n"


def test_token_ids_beyond_the_vocabulary_are_refused(processor: RequestProcessor) -> None:
    for op in ("generate", "detokenize"):
        options = Options.model_validate({"op": op, "prompt_token_ids": [2, 544]})
        with pytest.raises(InvalidRequest, match=r"544.*has 544 tokens") as caught:
            (processor.process if op == "generate" else processor.tokens)(Request(options=options))
        assert caught.value.field == "options.prompt_token_ids"


def test_a_prompt_of_token_ids_that_is_too_long_is_called_by_its_name(processor: RequestProcessor) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        processor.process(Request(options=Options(prompt_token_ids=(300,) * 5000)))
    assert caught.value.field == "options.prompt_token_ids"


def test_tokens_there_and_back(processor: RequestProcessor) -> None:
    message = Message(role="user", content="Grüße 👋")
    there = processor.tokens(Request(messages=(message,), options=Options(op="tokenize")))
    assert there.text == "<bos><start_of_turn>user\nGrüße 👋<end_of_turn>\n<start_of_turn>model\n"
    assert there.token_ids == processor.process(Request(messages=(message,))).engine_request.prompt.token_ids
    assert (len(there.pieces), there.context_length) == (len(there.token_ids), 4096)
    back = Options(op="detokenize", prompt_token_ids=there.token_ids)
    assert processor.tokens(Request(options=back)) == there
    assert processor.tokens(Request(prompt="Hi", options=Options(op="tokenize"))).text == "<bos>Hi"


def test_settings_come_from_parameters_and_the_environment_wins() -> None:
    settings = Settings.read(
        {"max_queue": "3", "max_images": "4"},
        {"GEMMA_MAX_QUEUE": "5", "MODEL_NAME": "google/gemma-3n-E4B-it"},
    )
    assert (settings.max_queue, settings.max_images) == (5, 4)
    assert settings.public_name == "google/gemma-3n-E4B-it"


def test_a_folder_is_called_by_its_last_part(tiny: Path) -> None:
    assert Settings(model_name=str(tiny)).public_name == "gemma3n-tiny"
    assert Settings(checkpoint=tiny).public_name == "gemma3n-tiny"
    assert (
        Settings(checkpoint=tiny, model_name="google/gemma-3n-E4B-it").public_name == "google/gemma-3n-E4B-it"
    )


@pytest.mark.parametrize("values", [{"max_queue": "-1"}, {"max_qeue": "1"}, {"dtype": "float16"}])
def test_a_wrong_setting_is_named(values: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Settings.read(values, {})
    assert caught.value.field == next(iter(values))


def test_a_shorter_context_may_be_asked_for_and_no_longer_one(tiny: Path) -> None:
    assert open_checkpoint(tiny, 100).context_length == 100
    with pytest.raises(InvalidRequest, match="5000 is more than the checkpoint's 4096"):
        open_checkpoint(tiny, 5000)


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"config\.json"):
        open_checkpoint(tmp_path)


def test_greedy_by_recommendation(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny / "config.json").read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": False}), encoding="utf-8")
    opened = open_checkpoint(tmp_path)
    assert opened.defaults.temperature == 0
    assert opened.eos_token_ids == {1, 9}


def test_folders_are_found(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_folder("", tiny) == tiny
    assert find_folder(str(tiny), None) == tiny
    with pytest.raises(InvalidRequest, match="not set"):
        find_folder("", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidRequest, match="nobody/nothing"):
        find_folder("nobody/nothing", None)
