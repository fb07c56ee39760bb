"""``mmproj`` files that are refused, before any of their tensors is read."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemma_model.gguf_checkpoint import prepare_folder
from gemma_model.gguf_checkpoint.folder import ARCHITECTURES
from gemma_model.gguf_checkpoint.mmproj import fit_encoders
from gemma_model.weights.gguf_file import open_mmproj
from gemma_wire import InvalidRequest
from gemma_wire.gguf import GGUF, TensorInfo, read_gguf

pytest.importorskip("gguf", reason="the package gguf, which writes GGUF files, is not installed")
write_gguf = pytest.importorskip("gemma_model.testing.gguf_writer").write_gguf
write_mmproj = pytest.importorskip("gemma_model.testing.mmproj_writer").write_mmproj

Fit = Callable[[GGUF], Any]


@pytest.fixture(scope="module")
def files(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text model and its encoders."""
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(tiny, folder / "tiny.gguf", "F32")
    write_mmproj(tiny, folder / "mmproj.gguf", "F16")
    return folder


@pytest.fixture(scope="module")
def mmproj(files: Path) -> GGUF:
    return read_gguf(files / "mmproj.gguf")


@pytest.fixture(scope="module")
def fit(files: Path) -> Fit:
    """Fits encoders to the text model."""
    text_model = read_gguf(files / "tiny.gguf")
    config = ARCHITECTURES["gemma3n"](text_model)
    return lambda model: fit_encoders(model, text_model, config)


def changed(
    model: GGUF,
    keys: Mapping[str, Any] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    without: tuple[str, ...] = (),
    renamed: Mapping[str, str] | None = None,
) -> GGUF:
    """The header with other metadata or tensors."""
    tensors: dict[str, TensorInfo] = {}
    for name, info in model.tensors.items():
        new = (renamed or {}).get(name, name)
        if not name.startswith(without or ("-",)):
            tensors[new] = replace(info, name=new, shape=(shapes or {}).get(name, info.shape))
    metadata = {key: value for key, value in {**model.metadata, **(keys or {})}.items() if value is not None}
    return replace(model, metadata=metadata, tensors=tensors)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"keys": {"general.architecture": "llama"}}, "has the architecture 'llama'; encoders have 'clip'"),
    (
        {"keys": {"clip.vision.projector_type": "gemma3"}},
        "has the projector 'gemma3' for images; only 'gemma3nv', that of Gemma 3n, is supported",
    ),
    ({"keys": {"clip.audio.projector_type": "gemma4a"}}, "has the projector 'gemma4a' for audio"),
    ({"keys": {"clip.audio.projector_type": 3}}, "has the projector another type for audio"),
    ({"keys": {"clip.vision.projector_type": None}}, "has the projector '' for images"),
    ({"without": ("v.", "mm.", "a.")}, "has no encoder of images or audio"),
    ({"without": ("a.conv1d.0.norm",)}, "lacks 1 tensors of its encoders, such as 'a.conv1d.0.norm.weight'"),
    ({"without": ("a.blk.0.",)}, "has no tensor 'a.blk.0.conv_dw.weight'"),
    ({"without": ("mm.embedding",)}, "has no tensor 'mm.embedding.weight'"),
    ({"without": ("v.conv_stem.conv.bias",)}, "such as 'v.conv_stem.conv.bias'"),
    ({"without": ("v.blk.2.",)}, "lacks blocks of the image encoder before v.blk.3.0"),
    ({"without": ("v.blk.3.1.",)}, "lacks blocks of the image encoder before v.blk.3.2"),
    ({"without": ("v.blk.0.0.conv_exp",)}, "has no tensor v.blk.0.0.conv_exp.weight or v.blk.0.0.attn"),
    (
        {"renamed": {"v.msfa.norm.weight": "v.msfa.norm.bias"}},
        "lacks 1 tensors of its encoders, such as 'v.msfa.norm.weight'",
    ),
    (
        {"shapes": {"mm.input_projection.weight": (2048, 2048)}},
        "has the tensor 'mm.input_projection.weight' of shape [2048, 2048]; [64, 2048] is needed",
    ),
    (
        {"shapes": {"mm.a.input_projection.weight": (128, 32)}},
        "has the tensor 'mm.a.input_projection.weight' of shape [128, 32]; [64, 32] is needed",
    ),
    ({"shapes": {"v.conv_stem.conv.weight": (12, 3, 3, 3)}}, "for 12 channels; a multiple of 8 is needed"),
    ({"shapes": {"v.conv_stem.conv.weight": (8, 27)}}, "of shape [8, 27]; 4 dimensions are needed"),
    ({"shapes": {"v.blk.1.0.pw_exp.conv.weight": (32, 24, 1, 1)}}, "[32, 16, 1, 1] is needed"),
    ({"shapes": {"v.msfa.ffn.pw_exp.conv.weight": (98, 49, 1, 1)}}, "for 49 channels; the last stages have"),
    ({"shapes": {"a.blk.0.attn_q.weight": (32, 33)}}, "of shape [32, 33]; [32, 32] is needed"),
    (
        {"shapes": {"mm.embedding.weight": (17, 2048)}},
        "the text model has 544 rows of token embeddings, not 512",
    ),
    ({"keys": {"clip.vision.image_size": None}}, "has no metadata key 'clip.vision.image_size'"),
    ({"keys": {"clip.vision.image_size": 1 << 40}}, "not an integer of at most 4,096"),
    ({"keys": {"clip.vision.patch_size": 5}}, "12 soft tokens for an image; a square number is needed"),
    ({"keys": {"clip.vision.image_std": [1.0, 0.0, 1.0]}}, "the standard deviation [1.0, 0.0, 1.0]"),
    ({"keys": {"clip.audio.block_count": 2}}, "lacks 22 tensors of its encoders, such as 'a.blk.1.attn_k"),
    ({"keys": {"clip.audio.block_count": 1 << 31}}, "not an integer of at most 1,000"),
    ({"keys": {"clip.audio.attention.head_count": 3}}, "32, not a multiple of its 3 heads"),
    ({"keys": {"clip.audio.num_mel_bins": 80}}, "of shape [32, 128]; [32, 80] is needed"),
]


@pytest.mark.parametrize(("change", "expected"), REFUSED, ids=[text[:50] for _, text in REFUSED])
def test_what_is_refused(mmproj: GGUF, fit: Fit, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        fit(changed(mmproj, **change))
    assert raised.value.message.startswith("mmproj.gguf ")
    assert expected in raised.value.message
    assert "\n" not in raised.value.message


def test_an_unknown_tensor_and_one_under_two_names(mmproj: GGUF, fit: Fit) -> None:
    info = mmproj.tensors["a.pre_encode.out.weight"]
    for name, expected in {
        "a.blk.0.ffn_scale": "has the tensor 'a.blk.0.ffn_scale', which these encoders of Gemma 3n have not",
        "a.input_projection.weight": "has the tensor 'a.input_projection.weight' under two names",
    }.items():
        more = {**mmproj.tensors, name: replace(info, name=name)}
        with pytest.raises(InvalidRequest, match=expected):
            fit(replace(mmproj, tensors=more))


def test_other_names_and_shapes_of_the_same_tensors(mmproj: GGUF, fit: Fit) -> None:
    """Those of other versions of llama.cpp."""
    names = {
        "a.pre_encode.out.weight": "a.input_projection.weight",
        "a.blk.0.per_dim_scale": "a.blk.0.per_dim_scale.weight",
    }
    gamma = {name: (1, *info.shape, 1, 1) for name, info in mmproj.tensors.items() if "gamma" in name}
    kernel = {"a.blk.0.conv_dw.weight": (32, 5)}
    assert gamma
    assert fit(changed(mmproj, renamed=names, shapes={**gamma, **kernel})).config == fit(mmproj).config


def test_encoders_of_another_size_of_the_model(files: Path, tmp_path: Path) -> None:
    for name in ("tiny", "mmproj"):
        shutil.copy(files / f"{name}.gguf", tmp_path / f"{name}-{'E2B' if name == 'tiny' else 'E4B'}.gguf")
    with pytest.raises(InvalidRequest, match=r"mmproj-E4B\.gguf is for E4B, and tiny-E2B\.gguf is E2B"):
        prepare_folder(tmp_path, tmp_path / "cache")


def test_what_to_do_if_the_file_beside_the_model_cannot_be_used(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "tiny.gguf", tmp_path)
    content = (files / "mmproj.gguf").read_bytes()
    (tmp_path / "mmproj.gguf").write_bytes(content[:-1])
    with pytest.raises(InvalidRequest) as raised:
        prepare_folder(tmp_path, tmp_path / "cache")
    assert raised.value.field == "encoders"
    assert raised.value.message.startswith("mmproj.gguf is truncated or damaged: ")
    assert raised.value.message.endswith(
        "GEMMA_ENCODERS to another file, or GEMMA_TOWERS=none for text alone"
    )
    assert not (tmp_path / "cache").exists()
    assert prepare_folder(tmp_path, tmp_path / "cache", text_only=True)
    with pytest.raises(InvalidRequest, match="has the architecture 'gemma3n'; encoders have 'clip'"):
        prepare_folder(tmp_path, tmp_path / "cache", tmp_path / "tiny.gguf")
    with pytest.raises(InvalidRequest, match=r"there is no file .*/missing\.gguf"):
        prepare_folder(tmp_path, tmp_path / "cache", tmp_path / "missing.gguf")


quick = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
SIZES = st.lists(st.integers(1, 1 << 40) | st.integers(1, 64), min_size=1, max_size=4).map(tuple)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), 1 << 63),
    st.integers(0, 100),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.floats(), max_size=4),
)


@quick
@given(data=st.data())
def test_generated_headers(mmproj: GGUF, fit: Fit, data: st.DataObject) -> None:
    names, keys = st.sampled_from(sorted(mmproj.tensors)), st.sampled_from(sorted(mmproj.metadata))
    model = changed(
        mmproj,
        keys=data.draw(st.dictionaries(keys, VALUES, max_size=2)),
        shapes=data.draw(st.dictionaries(names, SIZES, max_size=2)),
        without=tuple(data.draw(st.lists(names, max_size=1))),
        renamed=data.draw(st.dictionaries(names, names | st.text(max_size=20), max_size=1)),
    )
    with suppress(InvalidRequest):
        assert fit(model).path.name == "mmproj.gguf"


@pytest.fixture(scope="module")
def scratch(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch")
    return Path(shutil.copy(files / "mmproj.gguf", folder))


@quick
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_changed_bytes_of_the_header(
    mmproj: GGUF, fit: Fit, scratch: Path, edits: list[tuple[float, int]]
) -> None:
    """A file is refused, or all its tensors are within it and can be read."""
    size = min(info.offset for info in mmproj.tensors.values())
    header = scratch.read_bytes()[:size]
    edited = bytearray(header)
    for place, byte in edits:
        edited[int(place * size)] = byte
    with scratch.open("r+b") as file:
        file.write(edited)
    try:
        with suppress(InvalidRequest):
            model = read_gguf(scratch)
            fit(model)
            for stored in open_mmproj(model).values():
                stored.load()
    finally:
        with scratch.open("r+b") as file:
            file.write(header)
