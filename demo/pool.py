"""Pools of generated images, cached in files: drawing takes as long as training."""

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from demo.pictures import COLOURS, MOST, SHAPES, Scene, draw, make_scene
from demo.sizes import IMAGE_SIDE

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Scenes and one image of each.

    Args:
        scenes: the content of the images.
        pixels: ``[pictures, side, side, 3]`` uint8.
        items: ``[pictures, most, 6]``: present, shape, colour, x, y, size.
    """

    scenes: list[Scene]
    pixels: Bytes
    items: Tensor

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels ``[batch, 3, side, side]`` in [-1, 1], and the items."""
        return as_pixels(self.pixels[rows.numpy()]), self.items[rows]


def as_pixels(pictures: Bytes) -> Tensor:
    """Input of the vision tower from uint8 ``[batch, side, side, 3]``, as from the image processor."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def resized(picture: Image.Image) -> Bytes:
    """The image resized to ``[side, side, 3]``; the aspect ratio is not kept."""
    return np.asarray(picture.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BILINEAR), np.uint8)


def picture_of(seed: int, number: int) -> tuple[Scene, Image.Image]:
    """Image ``number`` of the series of a seed."""
    rng = random.Random(f"{seed}-{number}")
    scene = make_scene(rng)
    return scene, draw(rng, scene)


def _drawn(task: tuple[int, int]) -> tuple[Scene, Bytes]:
    scene, picture = picture_of(*task)
    return scene, resized(picture)


def draw_pictures(seed: int, count: int, workers: int) -> Pictures:
    """A series of images. It depends on the seed only, not on the number of processes."""
    with ProcessPoolExecutor(workers) as pool:
        drawn = list(pool.map(_drawn, ((seed, number) for number in range(count)), chunksize=256))
    scenes = [scene for scene, _ in drawn]
    return Pictures(scenes, np.stack([pixels for _, pixels in drawn]), items_of(scenes))


def items_of(scenes: list[Scene]) -> Tensor:
    """Table of the shapes, ``[scenes, most, 6]``; a row of zeros if there is no shape."""
    items = torch.zeros(len(scenes), MOST, 6)
    colours = list(COLOURS)
    for row, scene in enumerate(scenes):
        for i, item in enumerate(scene.items):
            kind = (1, SHAPES.index(item.shape), colours.index(item.colour))
            items[row, i] = torch.tensor([*kind, item.x, item.y, item.size])
    return items


def kept_pictures(folder: Path, seed: int, count: int, workers: int) -> Pictures:
    """A series of images, from the cache file if an earlier run has written it."""
    path = folder / f"pictures-{seed}-{count}.npy"
    if not path.is_file():
        print(f"drawing {count:,} pictures", flush=True)
        pictures = draw_pictures(seed, count, workers)
        np.save(path, pictures.pixels)
        return pictures
    scenes = [make_scene(random.Random(f"{seed}-{number}")) for number in range(count)]
    return Pictures(scenes, np.load(path), items_of(scenes))
