"""``quantization_config`` of ``config.json``: how a compressed-tensors checkpoint stores its matrices.

The keys are those of the package ``compressed-tensors``. Weights alone are quantised in the computation, so
what the file says about activations is not used. Everything else that is not supported is refused by name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gemma_wire.errors import InvalidRequest
from gemma_wire.tensor_names import bare_name

SECTION = "quantization_config"
METHOD = "compressed-tensors"
FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")
STRATEGIES = ("group", "channel", "tensor")
EMBEDDINGS = ("embed_tokens", "embed_tokens_per_layer")
"""Modules of the class Embedding; all others are of the class Linear."""

_REGEX = "re:"


@dataclass(frozen=True)
class QuantizationScheme:
    """How some matrices are stored.

    Args:
        packed: several integers are in one int32.
        bits: of a number.
        type: of a number.
        symmetric: there are no zero points.
        group_size: elements of a row that share a scale; ``None``: all.
    """

    packed: bool
    bits: Literal[4, 8]
    type: Literal["int", "float"]
    symmetric: bool
    group_size: int | None

    @property
    def name(self) -> str:
        """For people: ``int4, groups of 32``."""
        groups = "a scale per row" if self.group_size is None else f"groups of {self.group_size}"
        asymmetric = "" if self.symmetric else "asymmetric, "
        return f"{'fp' if self.type == 'float' else 'int'}{self.bits}, {asymmetric}{groups}"


@dataclass(frozen=True)
class QuantizationConfig:
    """Which matrices are quantised, and how.

    Args:
        schemes: target → scheme, in the order of the file. A target is the name of a module, ``re:`` and a
            regular expression, or the class Linear or Embedding.
        ignored: targets that are not quantised.
    """

    schemes: Mapping[str, QuantizationScheme]
    ignored: tuple[str, ...]

    def scheme_of(self, module: str) -> QuantizationScheme | None:
        """The scheme of a module; ``None`` if it is ignored or no target matches.

        The name of a module is more specific than a regular expression, and that than a class.
        """
        if any(_specificity(module, target) for target in self.ignored):
            return None
        matches = [(_specificity(module, target), scheme) for target, scheme in self.schemes.items()]
        best = max(matches, key=lambda match: match[0], default=(0, None))
        return best[1] if best[0] else None

    @staticmethod
    def read(config: Mapping[str, Any]) -> "QuantizationConfig | None":
        """From ``config.json``; ``None``: the checkpoint is not quantised.

        Raises:
            InvalidRequest: naming the key whose value is not supported.
        """
        text = config.get("text_config")
        section = config.get(SECTION) or (text.get(SECTION) if isinstance(text, Mapping) else None)
        if section is None:
            return None
        _check_section(_object(section, SECTION))
        schemes: dict[str, QuantizationScheme] = {}
        for name, group in _object(section.get("config_groups"), f"{SECTION}.config_groups").items():
            where = f"{SECTION}.config_groups.{name}"
            scheme = _scheme(_object(group, where), section.get("format"), where)
            schemes |= dict.fromkeys(_targets(group.get("targets"), f"{where}.targets"), scheme)
        if not schemes:
            raise InvalidRequest("is empty", f"{SECTION}.config_groups")
        return QuantizationConfig(schemes, _targets(section.get("ignore") or [], f"{SECTION}.ignore"))


def _specificity(module: str, target: str) -> int:
    """3: the target is the name of the module; 2: a matching regular expression; 1: its class; 0: none."""
    if target.startswith(_REGEX):
        return 2 * bool(re.match(target.removeprefix(_REGEX), module))
    if bare_name(target) == bare_name(module):
        return 3
    is_embedding = bare_name(module) in EMBEDDINGS
    return int(target == ("Embedding" if is_embedding else "Linear"))


def _check_section(section: Mapping[str, Any]) -> None:
    """Check what concerns all groups.

    Raises:
        InvalidRequest: naming the key whose value is not supported.
    """
    _one_of(section, "quant_method", (METHOD,), SECTION)
    _one_of(section, "quantization_status", ("compressed", None), SECTION)
    for key, meaning in {
        "kv_cache_scheme": "the KV cache is not quantised",
        "transform_config": "there are no transforms of activations",
    }.items():
        if section.get(key):
            raise InvalidRequest(f"is not supported: {meaning}; only null is", f"{SECTION}.{key}")
    where = f"{SECTION}.sparsity_config"
    _one_of(_object(section.get("sparsity_config") or {}, where), "format", ("dense", None), where)


def _scheme(group: Mapping[str, Any], format_of_all: Any, where: str) -> QuantizationScheme:
    own = {"format": group.get("format") or format_of_all}
    _one_of(own, "format", FORMATS, where if group.get("format") else SECTION)
    weights = _object(group.get("weights"), f"{where}.weights")
    where += ".weights"
    kind = _one_of(weights, "type", ("int", "float"), where, default="int")
    packed = own["format"] == "pack-quantized"
    if kind == "float" and packed:
        raise InvalidRequest("'float' is not supported with pack-quantized, only 'int' is", f"{where}.type")
    _one_of(weights, "dynamic", (False, None), where)
    _one_of(weights, "actorder", (None, False, "weight", "static"), where)
    return QuantizationScheme(
        packed,
        _one_of(weights, "num_bits", (8,) if kind == "float" else (4, 8), where, default=8),
        kind,
        _one_of(weights, "symmetric", (True,) if kind == "float" else (True, False), where, default=True),
        _group_size(weights, where),
    )


def _group_size(weights: Mapping[str, Any], where: str) -> int | None:
    size = weights.get("group_size")
    inferred = "channel" if size in (None, -1) else "group"
    if _one_of(weights, "strategy", STRATEGIES, where, default=inferred) != "group":
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InvalidRequest(f"{size!r} is not an integer of at least 1", f"{where}.group_size")
    return size


def _one_of(
    section: Mapping[str, Any], key: str, accepted: tuple[Any, ...], where: str, default: Any = None
) -> Any:
    value = section.get(key)
    value = default if value is None else value
    if not any(value is each or (value == each and type(value) is type(each)) for each in accepted):
        known = [repr(each) for each in accepted if each is not None] or ["null"]
        only = f"only {' and '.join(known)} {'is' if len(known) == 1 else 'are'}"
        raise InvalidRequest(f"{value!r} is not supported, {only}", f"{where}.{key}")
    return value


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest("is not a JSON object", where)
    return value


def _targets(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(target, str) for target in value):
        raise InvalidRequest("is not a list of names", where)
    for target in value:
        try:
            re.compile(target.removeprefix(_REGEX) if target.startswith(_REGEX) else "")
        except re.error as error:
            raise InvalidRequest(f"{target!r} is not a regular expression: {error}", where) from None
    return tuple(value)
