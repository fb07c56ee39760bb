from pathlib import Path

import pytest

from gemma_wire import InvalidRequest
from gemma_wire.gguf_sources import (
    choose_files,
    find_mmproj,
    find_model,
    is_gguf,
    served_name,
    split_hub_id,
)

HUB = [
    "README.md",
    "config.json",
    "gemma-3n-E4B-it-Q4_0.gguf",
    "gemma-3n-E4B-it-Q4_K_M.gguf",
    "gemma-3n-E4B-it-UD-Q4_K_XL.gguf",
    "gemma-3n-E4B-it-BF16-00001-of-00002.gguf",
    "gemma-3n-E4B-it-BF16-00002-of-00002.gguf",
    "mmproj-F16.gguf",
    "mmproj-BF16.gguf",
    "mmproj-F32.gguf",
    "preprocessor_config.json",
    "tokenizer.json",
]
REST = ["mmproj-BF16.gguf", "tokenizer.json", "preprocessor_config.json"]


@pytest.mark.parametrize(
    ("selected", "expected"),
    [
        ("Q4_K_M", ["gemma-3n-E4B-it-Q4_K_M.gguf"]),
        ("q4_0", ["gemma-3n-E4B-it-Q4_0.gguf"]),
        ("UD-Q4_K_XL", ["gemma-3n-E4B-it-UD-Q4_K_XL.gguf"]),
        ("Q4_K_XL", ["gemma-3n-E4B-it-UD-Q4_K_XL.gguf"]),
        ("bf16", [f"gemma-3n-E4B-it-BF16-0000{i}-of-00002.gguf" for i in (1, 2)]),
    ],
)
def test_the_files_of_a_format(selected: str, expected: list[str]) -> None:
    assert choose_files("owner/name", reversed(HUB), selected) == [*expected, *REST]


def test_the_only_model_needs_no_format() -> None:
    assert choose_files("owner/name", ["a.gguf", "README.md"], "") == ["a.gguf"]


@pytest.mark.parametrize(
    ("names", "selected", "expected"),
    [
        (HUB, "", "owner/name has several GGUF files; add one of these formats after a colon, as in "),
        (HUB, "", "owner/name:Q4_K_M: BF16, Q4_0, Q4_K_M, UD-Q4_K_XL"),
        (HUB, "Q3_K", "owner/name has no GGUF file Q3_K; add one of"),
        (["README.md"], "Q4_0", "owner/name has no GGUF file Q4_0"),
        (["a-Q4_0.gguf", "b-Q4_0.gguf"], "Q4_0", "owner/name has several GGUF files"),
    ],
)
def test_a_format_that_selects_no_model(names: list[str], selected: str, expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        choose_files("owner/name", names, selected)
    assert expected in raised.value.message


def test_the_name_that_clients_use() -> None:
    assert served_name(Path("/x/gemma-Q4_0.gguf")) == "gemma-Q4_0"
    assert served_name(Path("gemma-00002-of-00003.gguf")) == "gemma"
    assert split_hub_id("owner/name:Q4_0") == ("owner/name", "Q4_0")
    assert split_hub_id("owner/name") == ("owner/name", "")


def test_which_paths_are_gguf(tmp_path: Path) -> None:
    assert is_gguf(tmp_path / "missing.gguf")
    assert not is_gguf(tmp_path)
    (tmp_path / "a.gguf").touch()
    assert is_gguf(tmp_path)
    for name in ("model.safetensors", "gguf.json"):
        (tmp_path / name).touch()
        assert not is_gguf(tmp_path)
        (tmp_path / name).unlink()


def test_the_model_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"has 0 GGUF files of text models \(none\)"):
        find_model(tmp_path)
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "m-mmproj-f16.gguf"):
        (tmp_path / name).touch()
    first = tmp_path / "m-00001-of-00002.gguf"
    assert find_model(tmp_path) == find_model(tmp_path / "m-00002-of-00002.gguf") == first
    (tmp_path / "n.gguf").touch()
    with pytest.raises(InvalidRequest, match=r"has 2 GGUF files .* \(m-00001-of-00002\.gguf, n\.gguf\)"):
        find_model(tmp_path)


def test_the_encoders_of_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "abc"
    model = folder / "BF16" / "m-00001-of-00002.gguf"
    model.parent.mkdir(parents=True)
    model.touch()
    assert find_mmproj(model) is None
    for names, expected in (
        (["mmproj-q.gguf"], "mmproj-q.gguf"),
        (["mmproj-a-F32.gguf"], "mmproj-a-F32.gguf"),
        (["mmproj-b-F16.gguf", "mmproj-a-F16.gguf"], "mmproj-a-F16.gguf"),
        (["m-MMPROJ-bf16.gguf"], "m-MMPROJ-bf16.gguf"),
    ):
        for name in names:
            (folder / name).touch()
        assert find_mmproj(model) == find_mmproj(folder) == folder / expected
    (model.parent / "mmproj.gguf").touch()
    assert find_mmproj(model) == model.parent / "mmproj.gguf"
    outside = tmp_path / "models"
    outside.mkdir()
    (tmp_path / "mmproj.gguf").touch()
    assert find_mmproj(outside / "m.gguf") is None
