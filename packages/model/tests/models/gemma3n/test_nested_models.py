"""Nested models: the same as a checkpoint that was cut by the published rule, on the same tensors."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma3nForCausalLM

from gemma_model.layers.attention_metadata import Batch
from gemma_model.models.gemma3n.config import Gemma3nDecoderConfig
from gemma_model.models.gemma3n.nested_models import PUBLISHED, NestedModel
from gemma_wire import InvalidRequest

E4B = Gemma3nDecoderConfig.read({"model_type": "gemma3n_text"})


def cut(oracle: Any, nested: NestedModel) -> Any:
    """A model of its own from the checkpoint's tensors, the way the published notebook cuts them."""
    config = oracle.config.text_config.to_dict()
    layers = config["num_hidden_layers"]
    kept = [number for number in range(layers) if number not in nested.skipped]
    config |= {
        "num_hidden_layers": len(kept),
        "intermediate_size": list(nested.intermediate_size),
        "layer_types": [config["layer_types"][number] for number in kept],
        "activation_sparsity_pattern": [config["activation_sparsity_pattern"][number] for number in kept],
        "num_kv_shared_layers": config["num_kv_shared_layers"] - len(nested.skipped),
    }
    tensors: dict[str, Tensor] = {}
    for name, tensor in oracle.model.language_model.state_dict().items():
        new_name, new_tensor = name, tensor
        if found := re.match(r"layers\.(\d+)\.(.*)", name):
            if int(found[1]) in nested.skipped:
                continue
            place = kept.index(int(found[1]))
            new_name, size = f"layers.{place}.{found[2]}", nested.intermediate_size[place]
            if re.fullmatch(r"mlp\.(gate|up)_proj\.weight", found[2]):
                new_tensor = tensor[:size]
            elif found[2] == "mlp.down_proj.weight":
                new_tensor = tensor[:, :size]
        elif name == "per_layer_model_projection.weight":
            new_tensor = tensor.view(layers, -1, tensor.shape[1])[kept].flatten(0, 1)
        elif name == "embed_tokens_per_layer.weight":
            new_tensor = tensor.view(tensor.shape[0], layers, -1)[:, kept].flatten(1)
        tensors[f"model.{new_name}"] = new_tensor
    small = Gemma3nForCausalLM(type(oracle.config.text_config)(**config)).eval()
    missing, unexpected = small.load_state_dict(tensors, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    small.tie_weights()
    return small


def slices(config: Gemma3nDecoderConfig) -> list[NestedModel]:
    half = NestedModel(tuple(size // 2 for size in config.intermediate_size))
    if not config.num_kv_shared_layers:
        return [half]
    first = config.first_kv_shared_layer
    mixed = tuple(size - 3 * (i % 2) for i, size in enumerate(config.intermediate_size))
    return [half, NestedModel(mixed[:first] + mixed[first + 1 :], (first,))]


def test_a_slice_equals_a_checkpoint_cut_by_the_published_rule(model: Any) -> None:
    ids = torch.randint(5, 100, (40,), generator=torch.Generator().manual_seed(5))
    rows = model.decoder.embed_tokens_per_layer.rows(ids.tolist(), model.decoder.embed_tokens.weight)
    for nested in slices(model.config):
        decoder = model.decoder.nested(nested)
        ours = decoder(decoder.embed_tokens(ids), rows, [Batch([0], [0], len(ids))], model.cache(), len(ids))
        expected = cut(model.oracle, nested)(input_ids=ids.unsqueeze(0)).logits[0]
        torch.testing.assert_close(ours, expected, rtol=0.0, atol=1e-4)


def test_a_nested_model_does_not_change_the_complete_model_and_owns_no_weights(model: Any) -> None:
    ids = torch.arange(5, 25)
    rows = model.decoder.embed_tokens_per_layer.rows(ids.tolist(), model.decoder.embed_tokens.weight)

    def logits(decoder: Any) -> Tensor:
        given: Tensor = decoder(decoder.embed_tokens(ids), rows, [Batch([0], [0], 20)], model.cache(), 1)
        return given

    before = logits(model.decoder)
    nested = model.decoder.nested(slices(model.config)[-1])
    assert not torch.equal(logits(nested), before)
    assert torch.equal(logits(model.decoder), before)
    assert _storages(nested) == _storages(model.decoder)


def _storages(decoder: Any) -> set[int]:
    """Where the weights of the feed-forward parts lie."""
    mlps = [layer.mlp for layer in decoder.layers]
    weights = [
        weight
        for mlp in mlps
        for weight in (*mlp.first_neurons(mlp.down_proj.weight.shape[1]), mlp.down_proj.weight)
    ]
    return {weight.operand.untyped_storage().data_ptr() for weight in weights}


def test_every_published_slice_fits_e4b() -> None:
    for nested in PUBLISHED.values():
        nested.check(E4B)


def test_e2b_has_the_published_sizes() -> None:
    e2b = PUBLISHED["E2B"]
    kept = [number for number in range(35) if number not in e2b.skipped]
    assert len(kept) == 30
    assert [e2b.size_of(number) for number in kept] == [8192] * 30


@pytest.mark.parametrize(
    ("nested", "says"),
    [
        (replace(PUBLISHED["E2B"], skipped=(3, 4, 5, 6, 7)), "layers [3, 4, 5, 6, 7]"),
        (replace(PUBLISHED["E2B"], skipped=(30, 31, 32, 33, 34)), "of those (20 to 34) the first"),
        (replace(PUBLISHED["E2B"], skipped=()), "30 sizes for the 35 remaining layers"),
        (NestedModel((16_385,) * 35), "a size of 16385 for layer 0"),
        (NestedModel((0,) * 35), "a size of 0 for"),
    ],
)
def test_a_slice_that_is_not_there_is_refused_by_name(nested: NestedModel, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        nested.check(E4B)
    assert says in caught.value.message
    assert caught.value.field == "variants"
