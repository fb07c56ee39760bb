import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gemma_wire import InvalidRequest
from gemma_wire.gguf import MAX_ARRAY, MAX_NAME, read_gguf
from gemma_wire.gguf_types import BLOCK_TYPES, SCALARS

ALIGNMENT = 32
KINDS = {kind.name: number for number, kind in BLOCK_TYPES.items()}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value(kind: int, content: Any) -> bytes:
    """A metadata value with its type; of an array, ``content`` is the type and the list of its elements."""
    return struct.pack("<I", kind) + bare(kind, content)


def bare(kind: int, content: Any) -> bytes:
    if kind == 8:
        return text(content)
    if kind == 9:
        element, values = content
        return struct.pack("<IQ", element, len(values)) + b"".join(bare(element, one) for one in values)
    return struct.pack("<" + SCALARS[kind], content)


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def gguf(
    pairs: dict[str, bytes] | None = None, infos: tuple[bytes, ...] = (), data: int = 0, version: int = 3
) -> bytes:
    pairs = pairs or {}
    header = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs))
    header += b"".join(text(key) + content for key, content in pairs.items()) + b"".join(infos)
    return header + bytes(-len(header) % ALIGNMENT + data)


def write(folder: Path, content: bytes, name: str = "model.gguf") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InvalidRequest) as raised:
        read_gguf(path)
    assert raised.value.field == "MODEL_NAME"
    assert "\n" not in raised.value.message
    return raised.value.message


MODEL = gguf(
    {
        "general.architecture": value(8, "gemma3n"),
        "gemma3n.block_count": value(4, 30),
        "gemma3n.attention.sliding_window_pattern": value(9, (7, [True, False])),
        "tokenizer.ggml.tokens": value(9, (8, ["<pad>", "ü"])),
    },
    (
        tensor("token_embd.weight", (2, 64), KINDS["Q4_0"], 0),
        tensor("altup_proj.weight", (3, 4, 8), KINDS["F16"], 96),
    ),
    data=96 + 192,
)


def test_metadata_and_tensors(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL)
    model = read_gguf(path)
    assert (model.files, model.architecture) == ((path,), "gemma3n")
    assert model.metadata["gemma3n.block_count"] == 30
    assert list(model.metadata["gemma3n.attention.sliding_window_pattern"]) == [True, False]  # type: ignore[arg-type]
    assert model.metadata["tokenizer.ggml.tokens"] == ["<pad>", "ü"]
    table, stacked = model.tensors["token_embd.weight"], model.tensors["altup_proj.weight"]
    assert (table.shape, table.kind.name, table.row_bytes, table.nbytes) == ((2, 64), "Q4_0", 36, 72)
    assert (stacked.shape, stacked.nbytes, stacked.offset - table.offset) == ((3, 4, 8), 192, 96)
    assert stacked.offset + stacked.nbytes == len(MODEL)


def test_the_data_begin_at_the_alignment_of_the_file(tmp_path: Path) -> None:
    info = tensor("a", (8,), KINDS["F32"], 0)
    content = gguf({"general.alignment": value(4, 256)}, (info,), data=512)
    assert read_gguf(write(tmp_path, content)).tensors["a"].offset == 256


@pytest.mark.parametrize("end", range(0, len(MODEL), 7))
def test_a_truncated_file(tmp_path: Path, end: int) -> None:
    message = refusal(write(tmp_path, MODEL[:end]))
    assert message.startswith("model.gguf is ")
    assert "truncated" in message or "not a GGUF file" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not a GGUF file"),
        (b"PK\x03\x04" * 9, "is not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1", "git-lfs pointer"),
        (gguf(version=1), "has version 1 of GGUF; only versions 2 and 3"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "is big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0), "1,099,511,627,776 tensors; at most 65,536"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 63), "metadata keys; at most 65,536"),
        (gguf({"k": value(8, b"\xff")}), "the metadata key 'k' has text that is not UTF-8"),
        (gguf({"k": struct.pack("<I", 13)}), "the metadata key 'k' has the unknown type 13"),
        (gguf({"k": struct.pack("<IIQ", 9, 0, MAX_ARRAY + 1)}), "elements in the metadata key 'k'; at most"),
        (gguf({"k": value(9, (8, ["a"])), "l": struct.pack("<IIQ", 9, 9, 1)}), "an array of type 9"),
        (gguf({"k" * (MAX_NAME + 1): value(0, 0)}), "bytes in the name after the beginning; at most 65,536"),
        (gguf({"general.alignment": value(4, 0)}), "has general.alignment 0; it must be a multiple of 8"),
        (gguf({"general.alignment": value(8, "32")}), "has general.alignment '32'"),
        (gguf({}, (tensor("a", (), 0, 0),)), "the tensor 'a' has 0 dimensions"),
        (gguf({}, (tensor("a", (1,) * 5, 0, 0),)), "the tensor 'a' has 5 dimensions"),
        (gguf({}, (tensor("a", (4, 0), 0, 0),)), "the tensor 'a' has the shape [4, 0]"),
        (
            gguf({}, (tensor("a", (4, 33), KINDS["Q8_0"], 0),)),
            "rows of Q8_0 have a multiple of 32 elements",
        ),
        (
            gguf({}, (tensor("a", (1, 256), 10, 0),)),
            "the tensor 'a' of type Q2_K; supported are F32, F16, Q4_0",
        ),
        (gguf({}, (tensor("a", (1, 256), 999, 0),)), "the tensor 'a' of type number 999"),
        (gguf({}, (tensor("a", (8,), 0, 4),), data=64), "the data of the tensor 'a' is not aligned"),
        (gguf({}, (tensor("a", (8,), 0, 0),) * 2, data=64), "two tensors of one name"),
        (gguf({}, (tensor("a", (1 << 60, 1 << 60), 0, 0),)), "but the tensor 'a' ends at"),
        (gguf({}, (tensor("a", (8,), 0, 1 << 63),), data=64), "but the tensor 'a' ends at"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    message = refusal(write(tmp_path, content))
    assert message.startswith("model.gguf ")
    assert expected in message


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    pair = text("k") + value(0, 1)
    content = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pair + pair
    assert "has the metadata key 'k' twice" in refusal(write(tmp_path, content))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert "there is no file" in refusal(tmp_path / "model.gguf")
    assert "there is no file" in refusal(tmp_path)


def part(number: int, count: int, names: str) -> bytes:
    split = {
        "split.no": value(2, number - 1),
        "split.count": value(2, count),
        "split.tensors.count": value(5, 3),
    }
    infos = tuple(tensor(name, (8,), 0, 32 * i) for i, name in enumerate(names))
    return gguf({"general.architecture": value(8, "gemma3"), **split}, infos, data=32 * len(names))


def write_parts(folder: Path, *names: str) -> list[Path]:
    count = len(names)
    return [
        write(folder, part(i, count, own), f"m-{i:05}-of-{count:05}.gguf") for i, own in enumerate(names, 1)
    ]


def test_a_split_model_from_any_of_its_parts(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, "ab", "c")
    for path in paths:
        model = read_gguf(path)
        assert model.files == tuple(paths)
        assert {name: info.file for name, info in model.tensors.items()} == {
            "a": paths[0],
            "b": paths[0],
            "c": paths[1],
        }


def test_split_models_that_are_not_complete(tmp_path: Path) -> None:
    first, second = write_parts(tmp_path, "ab", "c")
    second.write_bytes(part(2, 2, "d")[:-8])
    assert "m-00002-of-00002.gguf is truncated" in refusal(first)
    second.write_bytes(part(2, 2, "a"))
    assert "has the tensor 'a', which another part has too" in refusal(first)
    second.write_bytes(part(2, 2, "cd"))
    assert "2 parts with 4 tensors, not 3" in refusal(first)
    second.unlink()
    assert "m-00002-of-00002.gguf" in refusal(first)
    renamed = first.rename(tmp_path / "renamed.gguf")
    assert "is one of 2 parts, but its name is not NAME-00001-of-00002.gguf" in refusal(renamed)


def read_or_refuse(path: Path) -> None:
    """Reads a file, which must give tensors within the file, or be refused."""
    with suppress(InvalidRequest):
        for info in read_gguf(path).tensors.values():
            assert 0 < info.offset <= info.offset + info.nbytes <= info.file.stat().st_size


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


no_deadline = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@no_deadline
@given(edits=st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes(scratch: Path, edits: list[tuple[int, int]]) -> None:
    content = bytearray(MODEL)
    for at, byte in edits:
        content[at] = byte
    read_or_refuse(write(scratch, bytes(content)))


@no_deadline
@given(at=st.integers(0, len(MODEL)), inserted=st.binary(max_size=16), removed=st.integers(0, 32))
def test_inserted_and_removed_bytes(scratch: Path, at: int, inserted: bytes, removed: int) -> None:
    read_or_refuse(write(scratch, MODEL[:at] + inserted + MODEL[at + removed :]))


@no_deadline
@given(at=st.integers(4, len(MODEL) - 8), number=st.sampled_from([0, 1, 2**31, 2**32, 2**63, 2**64 - 1]))
def test_extreme_numbers(scratch: Path, at: int, number: int) -> None:
    read_or_refuse(write(scratch, MODEL[:at] + struct.pack("<Q", number) + MODEL[at + 8 :]))


@no_deadline
@given(st.binary(max_size=400))
@example(b"")
def test_any_bytes_after_the_magic_number(scratch: Path, rest: bytes) -> None:
    read_or_refuse(write(scratch, b"GGUF\x03\x00\x00\x00" + rest))


SCALAR_VALUES = {
    kind: st.booleans()
    if code == "?"
    else st.floats(allow_nan=False, width=32 if code == "f" else 64)
    if code in "fd"
    else st.integers(*((-(1 << bits - 1), (1 << bits - 1) - 1) if code.islower() else (0, (1 << bits) - 1)))
    for kind, code in SCALARS.items()
    for bits in [8 * struct.calcsize("<" + code)]
}
VALUES = st.one_of(
    *(st.tuples(st.just(kind), values) for kind, values in SCALAR_VALUES.items()),
    st.tuples(st.just(8), st.text()),
    *(
        st.tuples(st.just(9), st.tuples(st.just(kind), st.lists(values, max_size=5)))
        for kind, values in SCALAR_VALUES.items()
    ),
    st.tuples(st.just(9), st.tuples(st.just(8), st.lists(st.text(), max_size=5))),
)
KEYS = st.text(min_size=1).filter(lambda key: not key.startswith(("general.alignment", "split.")))


@no_deadline
@given(
    pairs=st.dictionaries(KEYS, VALUES, max_size=6),
    kinds=st.lists(st.sampled_from(sorted(BLOCK_TYPES)), max_size=4),
)
def test_generated_headers(scratch: Path, pairs: dict[str, tuple[int, Any]], kinds: list[int]) -> None:
    infos, at = [], 0
    for i, kind in enumerate(kinds):
        infos.append(tensor(f"t{i}", (2, BLOCK_TYPES[kind].elements), kind, at))
        at += -(-2 * BLOCK_TYPES[kind].nbytes // ALIGNMENT) * ALIGNMENT
    content = gguf({key: value(*pair) for key, pair in pairs.items()}, tuple(infos), data=at)
    model = read_gguf(write(scratch, content))
    for key, (kind, wanted) in pairs.items():
        got = model.metadata[key]
        assert (list(got) if kind == 9 else got) == (wanted[1] if kind == 9 else wanted)  # type: ignore[arg-type]
    assert [info.nbytes for info in model.tensors.values()] == [
        2 * BLOCK_TYPES[kind].nbytes for kind in kinds
    ]
