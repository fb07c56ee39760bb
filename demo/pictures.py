"""Pictures of one to four coloured shapes, and what can be asked about them.

A ``Scene`` is what is in a picture; ``draw`` makes it one of many pictures of it: another size and aspect
ratio, background, noise, blur. Everything follows from the random generator that is handed in.
"""

import io
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (245, 225, 40),
    "green": (40, 165, 60),
    "blue": (40, 80, 220),
    "purple": (140, 45, 175),
    "black": (18, 18, 20),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUNDS: tuple[tuple[int, int, int], ...] = (
    (255, 255, 255),
    (255, 255, 255),
    (255, 255, 255),
    (245, 240, 225),
    (200, 205, 210),
    (128, 128, 132),
    (60, 62, 70),
    (10, 10, 14),
    (190, 220, 245),
    (205, 235, 205),
    (250, 215, 220),
    (30, 45, 80),
)
MOST = 4
"""Maximum number of shapes in an image."""
CONTRAST = 95
"""Minimum distance of the colour of a shape from the background, in RGB space (0 to 441)."""
APART = 0.09
"""Minimum horizontal distance of two centres, relative to the width: the order is unambiguous."""
SIZES = {1: (0.24, 0.85), 2: (0.22, 0.5), 3: (0.2, 0.42), 4: (0.19, 0.36)}
"""Minimum and maximum diameter, relative to the shorter side, by the number of shapes."""


@dataclass(frozen=True)
class Item:
    """One shape.

    Args:
        x: of its centre, as a part of the width.
        y: as a part of the height.
        size: its diameter as a part of the shorter side.
    """

    shape: str
    colour: str
    x: float
    y: float
    size: float

    @property
    def name(self) -> str:
        """Name in questions and answers: ``red circle``."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """The content of an image.

    Args:
        items: from left to right.
        aspect: width by height.
        background: RGB.
    """

    items: tuple[Item, ...]
    aspect: float
    background: tuple[int, int, int]


def make_scene(rng: random.Random, count: int | None = None) -> Scene:
    """A random scene, in which no two shapes are the same.

    Args:
        rng: decides everything.
        count: of shapes; none: 0 (rarely) to ``MOST``.
    """
    if count is None:
        count = rng.choices(range(MOST + 1), weights=(5, 28, 30, 22, 15))[0]
    while True:
        aspect = 1.0 if rng.random() < 0.4 else math.exp(rng.uniform(-0.6, 0.6))
        background = rng.choice(BACKGROUNDS) if count else _any_colour(rng)
        items = _place(rng, count, aspect, background)
        if items is not None:
            return Scene(tuple(sorted(items, key=lambda item: item.x)), aspect, background)


def _any_colour(rng: random.Random) -> tuple[int, int, int]:
    """Of a picture that shows nothing else."""
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _place(
    rng: random.Random, count: int, aspect: float, background: tuple[int, int, int]
) -> list[Item] | None:
    """Random shapes that can be told apart; ``None`` if there was no space for the last one."""
    visible = [name for name, rgb in COLOURS.items() if math.dist(rgb, background) > CONTRAST]
    width, height = max(aspect, 1.0), max(1 / aspect, 1.0)  # in shorter sides
    items: list[Item] = []
    for _ in range(60):
        if len(items) == count:
            break
        size = rng.uniform(*SIZES[count])
        x, y = (rng.uniform(0.42 * size / side, 1 - 0.42 * size / side) for side in (width, height))
        item = Item(rng.choice(SHAPES), rng.choice(visible), x, y, size)
        if all(_beside(item, other, width, height) for other in items):
            items.append(item)
    return items if len(items) == count else None


def _beside(item: Item, other: Item, width: float, height: float) -> bool:
    """Whether two shapes can be told apart; they may overlap slightly."""
    distance = math.hypot((item.x - other.x) * width, (item.y - other.y) * height)
    free = distance > 0.42 * (item.size + other.size) and abs(item.x - other.x) > APART
    return free and item.name != other.name


def draw(rng: random.Random, scene: Scene) -> Image.Image:
    """A random image of a scene, RGB, 80 to 400 pixels on its shorter side."""
    short = rng.choice((80, 110, 140, 180, 240, 320, 400))
    width, height = round(short * max(scene.aspect, 1.0)), round(short * max(1 / scene.aspect, 1.0))
    picture = _background(rng, width, height, scene.background)
    pen = ImageDraw.Draw(picture)
    for item in scene.items:
        _draw_item(rng, pen, item, width, height, short)
    return _spoil(rng, picture)


def _background(rng: random.Random, width: int, height: int, rgb: tuple[int, int, int]) -> Image.Image:
    """A background of one colour, or with a small gradient."""
    if rng.random() < 0.7:
        return Image.new("RGB", (width, height), rgb)
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    angle = rng.uniform(0, 2 * math.pi)
    slope = rng.uniform(8, 24) * (math.cos(angle) * across + math.sin(angle) * down)
    return Image.fromarray((np.array(rgb) + slope[..., None]).clip(0, 255).astype(np.uint8))


def _draw_item(
    rng: random.Random, pen: ImageDraw.ImageDraw, item: Item, width: int, height: int, short: int
) -> None:
    x, y, radius = item.x * width, item.y * height, item.size * short / 2
    fill = _shade(rng, item.colour)
    if item.shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    else:
        pen.polygon(outline(item.shape, x, y, radius, _turn(rng, item.shape)), fill=fill)


def outline(shape: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    """The corners of a square, a triangle or a star around a centre, rotated by an angle in radians."""
    corners = {"square": 4, "triangle": 3, "star": 10}[shape]
    upright = math.pi / 4 if shape == "square" else -math.pi / 2
    reach = [radius * (0.42 if shape == "star" and i % 2 else 1.0) for i in range(corners)]
    angles = [upright + turn + 2 * math.pi * i / corners for i in range(corners)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]


def _turn(rng: random.Random, shape: str) -> float:
    """Random rotation; half of all shapes are upright."""
    most = {"square": math.pi / 4, "triangle": math.pi, "star": math.pi / 5}[shape]
    return 0.0 if rng.random() < 0.5 else rng.uniform(-most, most)


def _shade(rng: random.Random, colour: str) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, round(c + rng.uniform(-16, 16)))) for c in COLOURS[colour])
    return red, green, blue


def _spoil(rng: random.Random, picture: Image.Image) -> Image.Image:
    """Degradations of real images: blur, noise, brightness, JPEG compression."""
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.012 * min(picture.size))))
    if rng.random() < 0.25:
        noise = np.random.default_rng(rng.getrandbits(64)).normal(
            0, rng.uniform(2, 14), (*picture.size[::-1], 3)
        )
        picture = Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        scale = rng.uniform(0.85, 1.05)
        picture = picture.point(lambda value: min(255, value * scale))
    if rng.random() < 0.25:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=rng.randint(40, 90))
        picture = Image.open(file).convert("RGB")
    return picture
