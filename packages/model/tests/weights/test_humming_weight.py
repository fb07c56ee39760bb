"""The library's format: what is read from it, and what the library makes of the arguments it gets.

No GPU is needed. The library's own code packs integers, compiled for the CPU, and scales; its checks and
choices of kernels run on fake tensors and a made-up device.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import humming.device
import humming.kernel.humming
import humming.tune
import humming.utils.device
import pytest
import torch
from humming import transform
from humming.kernel.humming import HummingKernel
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from gemma_model.weights import humming_weight
from gemma_model.weights.humming_weight import HummingWeight, unsupported
from gemma_model.weights.quantized_tensor import QuantizedTensor
from gemma_wire import InvalidRequest

from ..fake_gpu import watched
from .quantized import Bits, random_matrix
from .repack_on_cpu import compile_repack

MULTIPROCESSORS = {80: 108, 86: 82, 87: 16, 89: 128, 90: 132}


class Device:
    """What the library asks a GPU."""

    name, is_ppu = "made up", False
    max_registers_per_sm, memory_bandwidth_gbps = 65536, 1000.0
    tensorcore_tops: ClassVar[dict[str, float]] = {"float16": 300.0, "bfloat16": 300.0}
    sm_version = 80

    def __init__(self, index: int = 0) -> None:
        self.index, self.sm_major, self.sm_minor = 0, self.sm_version // 10, self.sm_version % 10
        self.sm_count = MULTIPROCESSORS[self.sm_version]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[int]:
    """A made-up GPU with that compute capability."""
    sm_version: int = getattr(request, "param", 80)
    monkeypatch.setattr(Device, "sm_version", sm_version)
    monkeypatch.setattr(humming.device.DeviceInfo, "_instances", {})
    monkeypatch.setattr(humming.device.current_device, "_value", None)
    extension = SimpleNamespace(_DeviceInfo=Device)
    for module in (humming.utils.device, humming.device):
        monkeypatch.setattr(module, "_get_device_info_extension", lambda: extension)
    for module in (humming.device, humming.tune, humming.kernel.humming):
        monkeypatch.setattr(module, "get_device_index", lambda device=None: 0)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    humming.tune._get_heuristics_config.cache_clear()
    yield sm_version
    humming.tune._get_heuristics_config.cache_clear()
    humming.device.current_device._value = None


@pytest.fixture(scope="session")
def repack(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Tensor, int], Tensor]:
    return compile_repack(tmp_path_factory.mktemp("repack"))


@pytest.fixture
def pack(
    gpu: int, repack: Callable[[Tensor, int], Tensor], monkeypatch: pytest.MonkeyPatch
) -> Callable[[QuantizedTensor], HummingWeight]:
    """``HummingWeight.pack`` on the CPU."""

    def repack_weight(inputs: Tensor, weight_bits: int, **settings: Any) -> Tensor:
        expected = {
            "activation_bits": 16,
            "is_weight_packed": True,
            "should_preprocess_for_int2fp": weight_bits == 8,
            "should_preprocess_with_zp": False,
            "interleave_mode": 3,
            "use_packed_k_layout": False,
            "use_native_dequant": False,
        }
        assert settings | expected == settings
        return repack(inputs[0], weight_bits).unsqueeze(0)

    monkeypatch.setattr(transform.ops, "repack_weight", repack_weight)
    return lambda matrix: HummingWeight.pack(matrix, torch.bfloat16)


FORMATS = [
    (4, 32, False),
    (4, 32, True),
    (4, 16, False),
    (4, 128, True),
    (4, 384, False),
    (8, 32, False),
    (8, 16, False),
]


def matrix_of(
    bits: Bits, group_size: int, offsets: bool, out: int = 192, width: int = 384
) -> QuantizedTensor:
    matrix = random_matrix(out, width, bits, group_size, scale_dtype=torch.bfloat16)
    if not offsets:
        return matrix
    zeros = torch.randint(0, 16, matrix.scales.shape, generator=torch.Generator().manual_seed(1))
    return QuantizedTensor(matrix.quants, matrix.scales, -zeros * matrix.scales.float(), bits)


@pytest.mark.parametrize(("bits", "group_size", "offsets"), FORMATS)
def test_rows_are_those_of_the_dequantised_matrix(
    pack: Callable[[QuantizedTensor], HummingWeight], bits: Bits, group_size: int, offsets: bool
) -> None:
    matrix = matrix_of(bits, group_size, offsets)
    weight = pack(matrix)
    assert weight.shape == matrix.shape
    ids = torch.randperm(matrix.shape[0])
    torch.testing.assert_close(weight.rows(ids), matrix.rows(ids).dequantize(torch.bfloat16), atol=0, rtol=0)


@pytest.mark.parametrize(("bits", "group_size", "offsets"), FORMATS[:2] + FORMATS[-1:])
def test_ranges_of_rows_and_first_columns(
    pack: Callable[[QuantizedTensor], HummingWeight], bits: Bits, group_size: int, offsets: bool
) -> None:
    matrix = matrix_of(bits, group_size, offsets)
    weight = pack(matrix)
    assert weight.row_range(0, 192) is weight
    part, narrow = weight.row_range(64, 192), weight.first_columns(256)
    assert (part.shape, narrow.shape) == ((128, 384), (192, 256))
    dense = matrix.dequantize(torch.bfloat16)
    assert torch.equal(part.rows(torch.arange(128)), dense[64:])
    assert torch.equal(narrow.rows(torch.arange(192)), dense[:, :256])
    assert narrow._weight.data_ptr() == weight._weight.data_ptr()
    with pytest.raises(InvalidRequest, match="32 neurons are not a multiple of 64"):
        weight.row_range(0, 32)
    with pytest.raises(InvalidRequest, match="64 neurons are not a multiple of 128"):
        weight.first_columns(64)


def test_zero_points_that_bf16_cannot_represent_are_refused(
    pack: Callable[[QuantizedTensor], HummingWeight],
) -> None:
    matrix = matrix_of(4, 32, offsets=True)
    assert matrix.offsets is not None
    matrix.offsets[3, 2] = 40 * matrix.scales[3, 2].float()
    with pytest.raises(ValueError, match="zero points above 32"):
        pack(matrix)
    matrix.scales[3, 2] = 0
    with pytest.raises(ValueError, match="zero points above 32"):
        pack(matrix)


@pytest.mark.parametrize(
    ("out", "width", "bits", "group_size", "offsets", "reason"),
    [
        (64, 128, 4, 32, False, ""),
        (96, 128, 4, 32, False, "its size"),
        (64, 96, 4, 32, False, "its size"),
        (64, 128, 8, 32, True, "offsets"),
        (64, 128, 4, 8, False, "groups of 8"),
        (64, 384, 4, 192, False, "groups of 192"),
    ],
)
def test_what_cannot_be_packed(
    out: int, width: int, bits: Bits, group_size: int, offsets: bool, reason: str
) -> None:
    matrix = random_matrix(out, width, bits, group_size, offsets=offsets)
    assert bool(unsupported(matrix)) == bool(reason)
    assert reason in unsupported(matrix)


SHAPES_OF_E4B = [
    (3072, 2048),  # queries, keys, values
    (2048, 2048),
    (32768, 2048),  # gate and up
    (2048, 16384),
    (16384, 2048),  # E2B's
    (2048, 8192),
    (256, 2048),  # per-layer inputs
    (2048, 256),
    (8960, 2048),
    (262400, 2048),
]


@pytest.mark.parametrize("gpu", MULTIPROCESSORS, indirect=True)
@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (8, 16)])
def test_the_library_accepts_the_shapes_of_e4b(
    gpu: int, bits: Bits, group_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything up to the compilation of the kernels, on fake tensors."""
    monkeypatch.setattr(HummingKernel, "prepare", lambda self: None)
    monkeypatch.setattr(HummingKernel, "register_kernel", lambda self: None)
    for out, width in SHAPES_OF_E4B:
        with FakeTensorMode():
            quants = torch.empty((out, width * bits // 8), dtype=torch.uint8 if bits == 4 else torch.int8)
            scales = torch.empty((out, width // group_size), dtype=torch.bfloat16)
            fake = QuantizedTensor(quants.cuda(), scales.cuda(), None, bits)
            weight = HummingWeight.pack(fake, torch.bfloat16)
            x = torch.empty(3, width, dtype=torch.bfloat16, device="cuda")
            ids = torch.zeros(5, dtype=torch.int64, device="cuda")
            with watched("nothing"):  # as a CUDA graph needs it
                y, rows = weight.matmul(x), weight.rows(ids)
        assert (weight.shape, weight.dtype, weight.device.type) == ((out, width), torch.bfloat16, "cuda")
        assert weight.nbytes == fake.nbytes
        assert (y.shape, y.dtype, y.device.type) == ((3, out), torch.bfloat16, "cuda")
        assert rows.shape == (5, width)
        ranges = json.loads(weight._kernels)
        assert [end for _, end, _ in ranges] == [8, 16, 32, 64, 128, 1 << 30]
        assert [begin for begin, _, _ in ranges] == [0, 8, 16, 32, 64, 128]
        for _, _, settings in ranges:
            settings.pop("num_sms", None)
            kernel = HummingKernel(**json.loads(weight._layer), **settings)
            assert kernel.problem_shape == (0, out, width)


def test_the_product_is_one_operation_of_a_compiled_layer(
    pack: Callable[[QuantizedTensor], HummingWeight], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = pack(matrix_of(4, 32, offsets=False))
    calls: list[dict[str, Any]] = []

    def gemm(**arguments: Any) -> Tensor:
        calls.append(arguments)
        y: Tensor = arguments["inputs"] @ weight.rows(torch.arange(192)).t()
        return y

    monkeypatch.setattr("humming.ops.humming_gemm", gemm)
    compiled = torch.compile(weight.matmul, backend="eager", fullgraph=True)
    x = torch.randn(3, 384).to(torch.bfloat16)
    assert torch.equal(compiled(x), weight.matmul(x))
    assert calls[0]["weight"].shape == (384 // 16, 192 * 16 * 4 // 32)
    assert calls[0]["weight_scale"].shape == (384 // 32, 192)
    assert calls[0]["locks"].shape == (humming_weight.LOCKS,)
