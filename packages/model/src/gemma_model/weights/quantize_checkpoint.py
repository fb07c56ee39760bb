"""Writes a quantised copy of a checkpoint, in the format of the package compressed-tensors (pack-quantized).

Usage: ``python -m gemma_model.weights.quantize_checkpoint SOURCE TARGET --format int4``; users call
``gemma-triton quantize``. Matrices are read, quantised and written in parts, so memory holds no complete one.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from argparse import ArgumentParser
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, int64, set_num_threads, tensor, uint8

from gemma_model.checkpoint import read_config
from gemma_model.weights.compressed_tensors import OFFSET_OF_8_BITS, PACKED, SCALE, SHAPE
from gemma_model.weights.progress_bar import ProgressBar
from gemma_model.weights.quantization_error import ErrorReport, Errors
from gemma_model.weights.quantization_recipe import (
    BITS,
    OPTIONAL_BITS,
    Bits,
    Recipe,
    kind_of,
    quantization_section,
)
from gemma_model.weights.quantize import GROUP_SIZE, can_quantize, quantize
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_model.weights.safetensors_files import DTYPES, FileTensor, load_tensor, open_files
from gemma_model.weights.safetensors_writer import SafetensorsWriter, TensorHeader
from gemma_wire import InvalidRequest
from gemma_wire.quantization import QuantizationConfig

SHARD_BYTES = 4 * 10**9
PART_ELEMENTS = 1 << 22
"""Elements that are read and written at a time."""

INDEX = "model.safetensors.index.json"
NOT_COPIED = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.gguf",
    "*.h5",
    "*.msgpack",
    INDEX,
    "config.json",
    ".*",
)
"""Weights in any format, what is written anew, and hidden files."""


@dataclass(frozen=True)
class Conversion:
    """A tensor of the source, and what it becomes.

    Args:
        source: the tensor.
        kind: of matrix, such as ``q_proj``; ``None``: it is copied.
        bits: of the integers; ``None``: it is copied.
    """

    source: FileTensor
    kind: str | None
    bits: Bits | None

    @property
    def headers(self) -> tuple[TensorHeader, ...]:
        """What is written."""
        key, shape = self.source.key, self.source.shape
        if self.bits is None:
            return (TensorHeader(key, self.source.dtype, shape),)
        module, (out, width) = key.removesuffix("weight"), shape
        return (
            TensorHeader(module + PACKED, "I32", (out, width * self.bits // 32)),
            TensorHeader(module + SCALE, "BF16", (out, width // GROUP_SIZE)),
            TensorHeader(module + SHAPE, "I64", (2,)),
        )

    @property
    def nbytes(self) -> int:
        """The size of what is written."""
        return sum(header.nbytes for header in self.headers)


def quantize_checkpoint(source: Path, target: Path, recipe: Recipe, progress: ProgressBar) -> ErrorReport:
    """Write a quantised copy of a checkpoint; ``target`` appears when it is complete.

    Args:
        source: a folder with safetensors files that are not quantised.
        target: a folder that does not exist or is empty.
        recipe: what is quantised, and how.
        progress: is told what was read.

    Raises:
        InvalidRequest: one of them is not as it should be, or the disk is too small.
    """
    config = read_config(source)
    if QuantizationConfig.read(config) is not None:
        raise InvalidRequest(f"{source} is quantised already", "SOURCE")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidRequest(f"{target} exists and is not an empty folder", "TARGET")
    conversions = plan_conversions(open_files(source), recipe)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_disk_space(target.parent, conversions, source)
    with _appears_complete(target) as unfinished:
        shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
        report = ErrorReport()
        progress.total = sum(_source_bytes(each) for each in conversions)
        _write_shards(unfinished, conversions, report, progress)
        section = quantization_section(_bits_of_kinds(conversions))
        text = json.dumps({**config, "quantization_config": section}, indent=2, ensure_ascii=False) + "\n"
        (unfinished / "config.json").write_text(text, encoding="utf-8")
    return report


def plan_conversions(tensors: Mapping[str, FileTensor], recipe: Recipe) -> list[Conversion]:
    """What becomes of each tensor, in the order of their names.

    Raises:
        InvalidRequest: a tensor's dtype is not supported.
    """
    uneven = {kind_of(key) for key, each in tensors.items() if not can_quantize(each.shape)}
    conversions = []
    for key, each in sorted(tensors.items()):
        if each.dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise InvalidRequest(f"{key} is {each.dtype}; only {known} are supported", "SOURCE")
        kind = kind_of(key)
        bits = None if kind in uneven else recipe.bits_of(key)
        conversions.append(Conversion(each, kind if bits else None, bits))
    return conversions


def _write_shards(
    folder: Path, conversions: Sequence[Conversion], report: ErrorReport, progress: ProgressBar
) -> None:
    shards = _shards(conversions)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    weight_map: dict[str, str] = {}
    for name, shard in zip(names, shards, strict=True):
        headers = [header for conversion in shard for header in conversion.headers]
        weight_map |= {header.key: name for header in headers}
        with SafetensorsWriter(folder / name, headers) as file:
            for conversion in shard:
                _write(file, conversion, report, progress)
    if len(shards) > 1:
        total = sum(conversion.nbytes for conversion in conversions)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _shards(conversions: Sequence[Conversion]) -> list[list[Conversion]]:
    """Files of at most ``SHARD_BYTES``, unless one tensor is larger."""
    shards: list[list[Conversion]] = [[]]
    size = 0
    for conversion in conversions:
        if shards[-1] and size + conversion.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(conversion)
        size += conversion.nbytes
    return shards


def _write(
    file: SafetensorsWriter, conversion: Conversion, report: ErrorReport, progress: ProgressBar
) -> None:
    source, bits = conversion.source, conversion.bits
    packed, *others = (header.key for header in conversion.headers)
    with safe_open(source.file, framework="pt") as opened:  # anew: what was read before is unmapped
        matrix = load_tensor(opened, source.key)
        if bits is None:
            for part in _parts(matrix.reshape(-1)):
                file.append(packed, part)
                progress.advance(part.nbytes)
            return
        for part, quantized, errors in _quantize_parts(matrix, bits):
            _check_finite(source.key, quantized)
            file.append(packed, _packed_bytes(quantized))
            file.append(others[0], quantized.scales)
            report.add(conversion.kind or "", bits, errors)
            progress.advance(part.nbytes)
        file.append(others[1], tensor(source.shape, dtype=int64))


def _quantize_parts(matrix: Tensor, bits: Bits) -> Iterator[tuple[Tensor, QuantizedTensor, Errors]]:
    """The parts of a matrix, in their order; each processor quantises one of its own."""

    def work(part: Tensor) -> tuple[Tensor, QuantizedTensor, Errors]:
        quantized = quantize(part, bits)
        return part, quantized, Errors.of(part, quantized)

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(processors, initializer=set_num_threads, initargs=(1,)) as pool:
        waiting: deque[Future[tuple[Tensor, QuantizedTensor, Errors]]] = deque()
        for part in _parts(matrix):
            waiting.append(pool.submit(work, part))
            if len(waiting) > processors:  # so that results do not accumulate in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _parts(matrix: Tensor) -> Iterator[Tensor]:
    rows = max(1, PART_ELEMENTS // max(1, matrix[:1].numel()))
    for at in range(0, len(matrix), rows):
        yield matrix[at : at + rows]


def _packed_bytes(quantized: QuantizedTensor) -> Tensor:
    stored = quantized.quants.view(uint8)
    return stored if quantized.bits == 4 else stored ^ OFFSET_OF_8_BITS


def _check_finite(key: str, quantized: QuantizedTensor) -> None:
    if not quantized.scales.isfinite().all():
        raise InvalidRequest(f"the tensor {key!r} has infinity or NaN", "SOURCE")


def _bits_of_kinds(conversions: Sequence[Conversion]) -> dict[str, Bits]:
    return {each.kind: each.bits for each in conversions if each.kind is not None and each.bits is not None}


def _source_bytes(conversion: Conversion) -> int:
    header = TensorHeader(conversion.source.key, conversion.source.dtype, conversion.source.shape)
    return header.nbytes


def _check_disk_space(folder: Path, conversions: Sequence[Conversion], source: Path) -> None:
    ignored = shutil.ignore_patterns(*NOT_COPIED)
    files = [file for file in source.iterdir() if file.is_file()]
    skipped = ignored(str(source), [file.name for file in files])
    needed = sum(each.nbytes for each in conversions)
    needed += sum(file.stat().st_size for file in files if file.name not in skipped)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InvalidRequest(
            f"the result needs {needed / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB free", "TARGET"
        )


@contextmanager
def _appears_complete(target: Path) -> Iterator[Path]:
    """A hidden folder next to ``target`` that becomes it at the end, and is removed after an error."""
    unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # the mode of a temporary folder allows no other user
        unfinished.replace(target)  # also if it is an empty folder
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the unfinished folder is removed
    parser = ArgumentParser(prog="gemma-triton quantize", description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--format", choices=BITS, required=True)
    parser.add_argument("--embedding", choices=OPTIONAL_BITS, default="int8")
    parser.add_argument("--per-layer-table", choices=OPTIONAL_BITS, default="int8")
    given: Any = parser.parse_args(argv)
    recipe = Recipe(BITS[given.format], OPTIONAL_BITS[given.embedding], OPTIONAL_BITS[given.per_layer_table])
    try:
        report = quantize_checkpoint(given.source, given.target.absolute(), recipe, ProgressBar())
    except InvalidRequest as error:
        sys.exit(f"error: {error.field}: {error.message}")
    except OSError as error:
        sys.exit(f"error: {error.filename or given.target}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(report.table())
    size = sum(file.stat().st_size for file in given.target.glob("*.safetensors"))
    print(f"wrote {given.target}: {size / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
