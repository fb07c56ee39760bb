import json
from pathlib import Path

import pytest

from gemma_model.checkpoint import find_folder, open_checkpoint
from gemma_model.settings import Settings, as_invalid_setting
from gemma_wire import (
    InvalidRequest,
)


def test_the_environment_takes_precedence_over_parameters() -> None:
    settings = Settings.read(
        {"max_queue": "3", "max_images": "4"},
        {"GEMMA_MAX_QUEUE": "5", "MODEL_NAME": "google/gemma-3n-E4B-it"},
    )
    assert (settings.max_queue, settings.max_images) == (5, 4)
    assert settings.public_name == "google/gemma-3n-E4B-it"


def test_the_public_name_of_a_folder_is_its_last_part(tiny: Path) -> None:
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


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"towers": "none"}, "always loads the towers; use GEMMA_ENGINE=native with GEMMA_TOWERS=none"),
        ({"quantize": "int4"}, "does not quantise weights; use GEMMA_ENGINE=native with GEMMA_QUANTIZE=int4"),
    ],
)
def test_what_the_reference_engine_does_not_support_is_named(values: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Settings.read({"engine": "reference", **values}, {})
    assert str(as_invalid_setting(caught.value)) == f"the reference engine {words}"


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("max_model_len", "GEMMA_MAX_MODEL_LEN: is wrong"),
        ("model_name", "MODEL_NAME: is wrong"),
        ("text_config.vocab_size", "text_config.vocab_size: is wrong"),
        ("", "is wrong"),
    ],
)
def test_an_error_at_load_names_the_variable(field: str, sentence: str) -> None:
    assert str(as_invalid_setting(InvalidRequest("is wrong", field))) == sentence


@pytest.mark.parametrize("name", ["prefix_cache_bytes", "media_cache_bytes", "max_grammar_bytes"])
def test_sizes_have_units(name: str) -> None:
    settings = Settings.read({}, {f"GEMMA_{name.upper()}": "2GiB"})
    assert getattr(settings, name) == 2 * 2**30
    with pytest.raises(
        InvalidRequest, match="8 has no unit and would be 8 bytes; use 8GiB or 8MiB"
    ) as caught:
        Settings.read({name: "8"}, {})
    assert caught.value.field == name


def test_max_model_len_can_only_shorten_the_context(tiny: Path) -> None:
    assert open_checkpoint(tiny, 100).context_length == 100
    with pytest.raises(InvalidRequest, match="5000 is more than the checkpoint's 4096"):
        open_checkpoint(tiny, 5000)


def test_an_invalid_checkpoint_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"config\.json"):
        open_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"config\.json"):
        open_checkpoint(tmp_path)


def test_a_context_length_that_is_no_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "gemma3n", "max_position_embeddings": "long"}', encoding="utf-8"
    )
    with pytest.raises(InvalidRequest, match="'long' is not an integer") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.field == "text_config.max_position_embeddings"


@pytest.mark.parametrize(
    ("model_type", "context", "vocabulary"), [("gemma3n", 32_768, 262_400), ("gemma3", 131_072, 262_208)]
)
def test_missing_numbers_are_those_of_the_family(
    tmp_path: Path, model_type: str, context: int, vocabulary: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "vision_config": {"a": 1}}))
    opened = open_checkpoint(tmp_path)
    assert (opened.context_length, opened.vocabulary) == (context, vocabulary)
    assert list(opened.soft_tokens) == (["image"] if model_type == "gemma3n" else []), "text only"


@pytest.mark.parametrize("model_type", ["llama", "gemma4", None, ["gemma3n"]])
def test_an_unknown_architecture_is_refused_with_the_supported_ones(
    tmp_path: Path, model_type: object
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(
        InvalidRequest, match="is not supported, only gemma3, gemma3_text, gemma3n, gemma3n_text are"
    ) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.field == "config.model_type"
    assert repr(model_type) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("[]", "MODEL_NAME"),
        ("3", "MODEL_NAME"),
        ("{}", "config.model_type"),
        ('{TYPE, "text_config": [1]}', "config.text_config"),
        ('{TYPE, "text_config": {"vocab_size": "x"}}', "text_config.vocab_size"),
        (
            '{TYPE, "vision_config": {}, "vision_soft_tokens_per_image": 0}',
            "config.vision_soft_tokens_per_image",
        ),
    ],
)
def test_a_config_of_a_wrong_type_is_named(tmp_path: Path, content: str, names: str) -> None:
    (tmp_path / "config.json").write_text(
        content.replace("{}", '{"a": 1}').replace("TYPE", '"model_type": "gemma3n"'), encoding="utf-8"
    )
    with pytest.raises(InvalidRequest) as caught:
        _read_all(tmp_path)
    assert caught.value.field == names


def _read_all(folder: Path) -> object:
    checkpoint = open_checkpoint(folder)
    return checkpoint.vocabulary, checkpoint.soft_tokens


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
