import io
import json
from pathlib import Path

import pytest
from PIL import Image

from gemma_model.checkpoint import Checkpoint, find_folder, open_checkpoint
from gemma_model.intake import Intake
from gemma_model.lane import ClientGone
from gemma_model.protocol import Sampling
from gemma_model.settings import Settings
from gemma_wire import AudioPart, ContextLengthExceeded, ImagePart, InvalidRequest, Message, Options, Request


@pytest.fixture(scope="module")
def checkpoint(tiny: Path) -> Checkpoint:
    return open_checkpoint(tiny)


@pytest.fixture(scope="module")
def intake(checkpoint: Checkpoint) -> Intake:
    return Intake(checkpoint, Settings(max_images=2))


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def test_the_checkpoint_says_what_it_needs(checkpoint: Checkpoint) -> None:
    assert checkpoint.defaults == Sampling(temperature=1.0, top_k=64, top_p=0.95)
    assert checkpoint.eos_token_ids == {1, 9}
    assert (checkpoint.context_length, checkpoint.image_tokens) == (4096, 16)


def test_what_the_request_leaves_open_is_the_checkpoints(intake: Intake, checkpoint: Checkpoint) -> None:
    generation = intake.accept(Request(prompt="Hi"))
    assert generation.sampling == checkpoint.defaults
    assert generation.max_tokens == 4096 - len(generation.prompt.token_ids)
    assert generation.stop_token_ids == checkpoint.eos_token_ids


def test_what_the_request_says_is_done(intake: Intake) -> None:
    options = Options(seed=4, top_k=0, min_tokens=2, ignore_eos=True)
    generation = intake.accept(Request(prompt="Hi", max_tokens=5, temperature=0, top_p=0.5, options=options))
    assert generation.sampling == Sampling(temperature=0, top_k=0, top_p=0.5, seed=4)
    assert (generation.max_tokens, generation.min_tokens, generation.stop_token_ids) == (5, 2, frozenset())


def test_max_tokens_ends_where_the_context_ends(intake: Intake) -> None:
    generation = intake.accept(Request(prompt="Hi", max_tokens=10**6))
    assert generation.max_tokens == 4096 - len(generation.prompt.token_ids)


def test_a_prompt_that_does_not_fit_states_both_numbers(intake: Intake) -> None:
    with pytest.raises(ContextLengthExceeded, match=r"has 5\d\d\d tokens.* 4096 tokens") as caught:
        intake.accept(Request(messages=(Message(role="user", content="~" * 5000),)))
    assert caught.value.field == "messages"


@pytest.mark.parametrize("text", [" " * 20_000_000 + "y", "a" * 20_000_000])
def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised(intake: Intake, text: str) -> None:
    with pytest.raises(ContextLengthExceeded, match="at least"):
        intake.accept(Request(prompt="x" + text))


def test_a_temperature_next_to_nothing_is_greedy(intake: Intake) -> None:
    assert intake.accept(Request(prompt="Hi", temperature=1e-38)).sampling.temperature == 0


def test_no_picture_is_decoded_for_a_client_that_has_left(intake: Intake) -> None:
    with pytest.raises(ClientGone):
        intake.accept(Request(prompt="<image_soft_token>", images=(b"no picture",)), gone=lambda: True)


def test_pictures_take_their_places(intake: Intake) -> None:
    message = Message(role="user", content=(ImagePart(), ImagePart()))
    generation = intake.accept(Request(messages=(message,), images=(_png(), _png())))
    assert len(generation.prompt.spans) == 2


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(prompt="<image_soft_token>" * 3, images=(b"x",) * 3), "images"),
        (Request(prompt="<image_soft_token>", images=(b"x",)), "images[0]"),
        (Request(prompt="x", images=(_png(),)), "images"),
        (Request(prompt="x", audio=(b"x",)), "audio"),
        (Request(messages=(Message(role="user", content=(AudioPart(),)),)), "messages"),
    ],
)
def test_media_that_cannot_be_taken_are_refused_by_name(
    intake: Intake, request_: Request, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        intake.accept(request_)
    assert caught.value.field == field


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
