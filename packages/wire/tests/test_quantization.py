import copy
import re
from typing import Any

import pytest

from gemma_wire import InvalidRequest
from gemma_wire.quantization import QuantizationConfig, QuantizationScheme

WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
SECTION: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "global_compression_ratio": None,
    "ignore": ["lm_head", "re:.*vision_tower.*"],
    "kv_cache_scheme": None,
    "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": WEIGHTS, "input_activations": None},
    },
}
INT4 = QuantizationScheme(packed=True, bits=4, type="int", symmetric=True, group_size=32)


def section(**weights: Any) -> dict[str, Any]:
    changed = copy.deepcopy(SECTION)
    changed["config_groups"]["group_0"]["weights"].update(weights)
    return changed


def read(**changes: Any) -> QuantizationConfig:
    config = QuantizationConfig.read({"quantization_config": {**copy.deepcopy(SECTION), **changes}})
    assert config is not None
    return config


def test_a_checkpoint_that_is_not_quantised() -> None:
    assert QuantizationConfig.read({}) is None
    assert QuantizationConfig.read({"quantization_config": None, "text_config": {}}) is None


@pytest.mark.parametrize("level", ["complete", "text"])
def test_the_section_may_be_in_the_text_part(level: str) -> None:
    inner = {"quantization_config": SECTION}
    config = QuantizationConfig.read(inner if level == "complete" else {"text_config": inner})
    assert config is not None
    assert config.schemes == {"Linear": INT4}
    assert config.ignored == ("lm_head", "re:.*vision_tower.*")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("model.language_model.layers.0.self_attn.q_proj", INT4),
        ("model.layers.0.mlp.down_proj", INT4),
        ("model.vision_tower.blocks.0.proj", None),
        ("lm_head", None),
        ("model.language_model.embed_tokens", None),
    ],
)
def test_targets_and_ignore(module: str, expected: QuantizationScheme | None) -> None:
    assert read().scheme_of(module) == expected


def test_the_most_specific_target_wins() -> None:
    def group(bits: int, *targets: str) -> dict[str, Any]:
        return {"targets": list(targets), "weights": {**WEIGHTS, "num_bits": bits}}

    config = read(
        config_groups={
            "by class": group(4, "Linear", "Embedding"),
            "by expression": group(8, "re:.*down_proj"),
            "by name": group(4, "model.layers.1.mlp.down_proj"),
        }
    )

    def bits(module: str) -> int:
        scheme = config.scheme_of(module)
        assert scheme is not None
        return scheme.bits

    assert bits("model.language_model.layers.0.mlp.up_proj") == 4
    assert bits("model.language_model.layers.0.mlp.down_proj") == 8
    assert bits("model.language_model.layers.1.mlp.down_proj") == 4, "in another layout of the names"
    assert bits("model.language_model.embed_tokens") == 4


def test_a_group_has_a_format_of_its_own() -> None:
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor"}
    groups = {"group_0": {"targets": ["Linear"], "weights": fp8, "format": "float-quantized"}}
    config = read(format="mixed-precision", config_groups=groups)
    assert config.schemes == {"Linear": QuantizationScheme(False, 8, "float", True, None)}


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        (INT4, "int4, groups of 32"),
        (QuantizationScheme(True, 8, "int", False, None), "int8, asymmetric, a scale per row"),
        (QuantizationScheme(False, 8, "float", True, None), "fp8, a scale per row"),
    ],
)
def test_a_scheme_has_a_name(scheme: QuantizationScheme, name: str) -> None:
    assert scheme.name == name


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"num_bits": 3}, r"weights.num_bits: 3 is not supported, only 4 and 8 are"),
        ({"num_bits": True}, r"weights.num_bits: True is not supported"),
        ({"type": "float"}, r"weights.type: 'float' is not supported with pack-quantized"),
        ({"type": "fp4"}, r"weights.type: 'fp4' is not supported, only 'int' and 'float' are"),
        ({"strategy": "block"}, r"weights.strategy: 'block' is not supported, only 'group' and 'channel'"),
        ({"group_size": 0}, r"weights.group_size: 0 is not an integer of at least 1"),
        ({"group_size": None}, r"weights.group_size: None is not an integer of at least 1"),
        ({"dynamic": True}, r"weights.dynamic: True is not supported, only False is"),
        ({"actorder": "group"}, r"weights.actorder: 'group' is not supported"),
        ({"symmetric": "yes"}, r"weights.symmetric: 'yes' is not supported, only True and False are"),
    ],
)
def test_unsupported_weights_are_refused(weights: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        QuantizationConfig.read({"quantization_config": section(**weights)})
    assert re.search(f"^quantization_config.config_groups.group_0.{message}", refused.value.to_line())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quant_method": "gptq"}, r"quant_method: 'gptq' is not supported, only 'compressed-tensors' is"),
        ({"quant_method": None}, r"quant_method: None is not supported"),
        ({"format": "nvfp4-pack-quantized"}, r"format: 'nvfp4-pack-quantized' is not supported, only 'pack-"),
        ({"quantization_status": "frozen"}, r"quantization_status: 'frozen' is not supported, only 'compr"),
        ({"kv_cache_scheme": {"num_bits": 8}}, r"kv_cache_scheme: is not supported: the KV cache is not"),
        ({"transform_config": {"config_groups": {"u": {}}}}, r"transform_config: is not supported"),
        ({"config_groups": {}}, r"config_groups: is empty"),
        ({"config_groups": None}, r"config_groups: is not a JSON object"),
        ({"config_groups": {"W4A16": ["Linear"]}}, r"config_groups.W4A16: is not a JSON object"),
        ({"config_groups": {"g": {"targets": "Linear", "weights": WEIGHTS}}}, r"g.targets: is not a list"),
        ({"config_groups": {"g": {"targets": ["Linear"]}}}, r"config_groups.g.weights: is not a JSON object"),
        ({"ignore": ["re:("]}, r"ignore: 're:\(' is not a regular expression"),
        ({"ignore": [1]}, r"ignore: is not a list of names"),
    ],
)
def test_other_unsupported_requests_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**changes)
    assert re.search(message, refused.value.to_line())
    assert refused.value.field.startswith("quantization_config.")


def test_sparse_weights_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="'sparse-24-bitmask' is not supported, only 'dense' is"):
        read(sparsity_config={"format": "sparse-24-bitmask"})
    assert read(sparsity_config={"format": "dense"}).schemes
