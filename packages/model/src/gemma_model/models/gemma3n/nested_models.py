"""Smaller models nested in a checkpoint, as views of its tensors (MatFormer, https://arxiv.org/abs/2310.07707).

A slice keeps the first so many neurons of each layer's feed-forward part, and leaves layers out whole. How a
checkpoint is cut is defined by the notebook "MatFormer Lab" of Google's Gemma cookbook:

    gate_proj, up_proj              rows ``[:size]``
    down_proj                       columns ``[:size]``
    per_layer_model_projection      rows of the layers that stay, P each
    embed_tokens_per_layer          columns of the layers that stay, P each

The sizes below are from the dataset google/gemma3n-slicing-configs on the Hugging Face hub.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gemma_model.models.gemma3n.config import TextConfig
from gemma_wire import InvalidRequest


@dataclass(frozen=True)
class Slice:
    """A nested model.

    Args:
        intermediate_size: of each layer that stays.
        skipped: layers that are left out: the first of those that borrow their keys and values.
    """

    intermediate_size: tuple[int, ...]
    skipped: tuple[int, ...] = ()

    def check(self, config: TextConfig) -> None:
        """Whether a checkpoint holds this model.

        Raises:
            InvalidRequest: naming the number that does not fit.
        """
        first = config.first_kv_shared_layer
        if self.skipped != tuple(range(first, first + len(self.skipped))):
            raise InvalidRequest(
                f"skips the layers {list(self.skipped)}; only layers that store no keys and values can be "
                f"left out, and of those ({first} to {config.num_hidden_layers - 1}) the first",
                "variants",
            )
        kept = [number for number in range(config.num_hidden_layers) if number not in self.skipped]
        if len(self.intermediate_size) != len(kept):
            raise InvalidRequest(
                f"has {len(self.intermediate_size)} sizes for the {len(kept)} layers that stay", "variants"
            )
        for number, size in zip(kept, self.intermediate_size, strict=True):
            if not 0 < size <= config.intermediate_size[number]:
                limit = config.intermediate_size[number]
                raise InvalidRequest(f"wants {size} of the {limit} neurons of layer {number}", "variants")

    def size_of(self, layer: int) -> int:
        """The feed-forward size of a layer, by its number in the whole checkpoint."""
        return self.intermediate_size[layer - sum(skipped < layer for skipped in self.skipped)]


def _published(count: int, wide: tuple[int, ...] = (), skipped: tuple[int, ...] = ()) -> Slice:
    """``count`` layers of 8,192 neurons, but 16,384 in the wide ones."""
    return Slice(tuple(16_384 if layer in wide else 8_192 for layer in range(count)), skipped)


PUBLISHED: Mapping[str, Slice] = {
    "E2B": _published(30, skipped=(20, 21, 22, 23, 24)),
    "E1.96B": _published(30, wide=(4,), skipped=(20, 21, 22, 23, 24)),
    "E2.54B": _published(35, wide=(4, 20, 21, 22, 23, 24)),
}
"""Slices of E4B; the numbers of wide layers are those of the slice."""
