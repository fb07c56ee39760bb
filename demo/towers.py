"""Trains the vision tower before the text model, with linear heads that are discarded afterwards.

A tower that is trained only through the loss of the text model does not improve for hours. With heads that
predict the shape and colour in the area of each soft token, its training takes half an hour. The text model
then only has to learn to use the soft tokens.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from demo.pictures import COLOURS, MOST, SHAPES
from demo.pool import Pictures
from demo.progress import Progress
from demo.schedule import batches, train_tower
from demo.sizes import IMAGE_GRID, VISION_WIDTH

COLOUR_COUNT, SHAPE_COUNT = len(COLOURS), len(SHAPES)
PEAK_RATE = 3e-3
BATCH = 64


class PictureHeads(nn.Module):
    """Heads that predict the shapes in the area of each soft token, and the number of shapes in the image."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = {
            "object": 1,
            "colour": COLOUR_COUNT,
            "shape": SHAPE_COUNT,
            "place": 3,
            "across": 3,
            "down": 3,
            "order": MOST,
            "kind": COLOUR_COUNT * SHAPE_COUNT,
        }
        self.cell = nn.Linear(VISION_WIDTH, sum(self.sizes.values()))
        self.count = nn.Sequential(nn.Linear(VISION_WIDTH, 128), nn.GELU(), nn.Linear(128, MOST + 1))
        with torch.no_grad():
            self.cell.bias[0] = -2.0  # most parts of a picture are empty
            self.cell.bias[-self.sizes["kind"] - MOST :] = -5.0

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Logits by name, for features ``[batch, cells, channels]``."""
        parts = self.cell(features).split(list(self.sizes.values()), dim=-1)
        return {**dict(zip(self.sizes, parts, strict=True)), "count": self.count(features.mean(1))}


def picture_targets(items: Tensor) -> dict[str, Tensor]:
    """Targets of the heads for items ``[batch, most, 6]``: present, shape, colour, x, y, size."""
    batch = items.shape[0]
    cells = IMAGE_GRID * IMAGE_GRID
    there = items[..., 0] > 0
    x, y = items[..., 3] * IMAGE_GRID, items[..., 4] * IMAGE_GRID
    column, row = (value.floor().clamp(0, IMAGE_GRID - 1) for value in (x, y))
    cell = (row * IMAGE_GRID + column).long()
    shape, colour = items[..., 1].long(), items[..., 2].long()
    rows = torch.arange(batch)[:, None].expand_as(cell)[there]
    where = (rows, cell[there])
    found = {
        "object": torch.zeros(batch, cells),
        "colour": torch.full((batch, cells), -100),
        "shape": torch.full((batch, cells), -100),
        "place": torch.zeros(batch, cells, 3),
        "across": torch.full((batch, cells), -100),
        "down": torch.full((batch, cells), -100),
        "order": torch.zeros(batch, cells, MOST),
        "kind": torch.zeros(batch, cells, COLOUR_COUNT * SHAPE_COUNT),
        "count": there.sum(1),
    }
    found["object"][where] = 1.0
    found["colour"][where] = colour[there]
    found["shape"][where] = shape[there]
    found["place"][where] = items[..., 3:][there]
    for name, value in (("across", items[..., 3]), ("down", items[..., 4])):
        found[name][where] = (value * 3).long().clamp(0, 2)[there]
    found["order"][(*where, from_left(items)[there])] = 1.0
    found["kind"][(*where, (colour * SHAPE_COUNT + shape)[there])] = 1.0
    return found


def from_left(items: Tensor) -> Tensor:
    """Position of each shape from left to right, ``[batch, most]``: the order of a description."""
    x = items[..., 3].masked_fill(items[..., 0] == 0, 2.0)
    return (x[:, None, :] < x[:, :, None]).sum(-1).clamp(max=MOST - 1)


def picture_loss(said: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """One loss for each head: a mean over images or over shapes."""
    batch = len(wanted["count"])
    taken = wanted["object"] > 0

    def each(name: str) -> Tensor:
        """Loss of independent binary targets."""
        said_of, wanted_of = said[name].flatten(1), wanted[name].flatten(1)
        return functional.binary_cross_entropy_with_logits(said_of, wanted_of, reduction="sum") / batch

    def one(name: str) -> Tensor:
        """Loss of a target class."""
        return functional.cross_entropy(said[name].flatten(0, -2), wanted[name].flatten())

    return {
        "object": each("object"),
        "colour": one("colour"),
        "shape": one("shape"),
        "place": 4 * functional.smooth_l1_loss(said["place"][taken], wanted["place"][taken], beta=0.1),
        "across": one("across"),
        "down": one("down"),
        "order": 0.5 * each("order"),
        "kind": 0.5 * each("kind"),
        "count": one("count"),
    }


def mirrored(pixels: Tensor, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmentation: flip a batch at random, horizontally, vertically or both."""
    across, down = torch.randint(0, 2, (2,), generator=generator).tolist()
    items = items.clone()
    if across:
        pixels, items[..., 3] = pixels.flip(-1), 1 - items[..., 3]
    if down:
        pixels, items[..., 4] = pixels.flip(-2), 1 - items[..., 4]
    return pixels, items


def train_vision(tower: nn.Module, pictures: Pictures, seed: int, progress: Progress) -> PictureHeads:
    """Train the vision tower. Returns its heads, for ``sight``."""
    generator = torch.Generator().manual_seed(seed)
    heads = PictureHeads()

    def losses(rows: Tensor) -> dict[str, Tensor]:
        pixels, items = mirrored(*pictures.batch(rows), generator)
        return picture_loss(heads(see(tower, pixels)), picture_targets(items))

    rows = batches(len(pictures), BATCH, progress.steps, generator)
    train_tower(tower, heads, losses, rows, PEAK_RATE, progress)
    return heads


def see(tower: nn.Module, pixels: Tensor) -> Tensor:
    """Pixels ``[batch, 3, side, side]`` → ``[batch, tokens, channels]``, a vector for each soft token."""
    features: Tensor = tower(pixel_values=pixels).last_hidden_state
    return features.flatten(2).transpose(1, 2)


@torch.no_grad()
def sight(tower: nn.Module, heads: PictureHeads, pictures: Pictures) -> dict[str, float]:
    """Accuracy on held-out images, by head, from 0 to 1."""
    tower.eval()
    right: dict[str, list[Tensor]] = {}
    for rows in torch.arange(len(pictures)).split(BATCH):
        pixels, items = pictures.batch(rows)
        said, wanted = heads(see(tower, pixels)), picture_targets(items)
        taken = wanted["object"] > 0
        for name in ("colour", "shape", "across", "down"):
            right.setdefault(name, []).append((said[name].argmax(-1) == wanted[name])[taken])
        for name in ("object", "order"):
            found = (said[name].flatten(1) > 0) == (wanted[name].flatten(1) > 0)
            right.setdefault(name, []).append(found.all(1))
        right.setdefault("count", []).append(said["count"].argmax(-1) == wanted["count"])
    return {name: torch.cat(parts).float().mean().item() for name, parts in right.items()}
