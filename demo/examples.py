"""The playground's examples, from the generators of the evaluation: ``python -m demo.examples``."""

import argparse
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path

import soundfile

from demo.exam import SEED
from demo.hearing import sound_of
from demo.pictures import Scene, draw, make_scene
from demo.sounds import RATE

FOLDER = Path(__file__).parent.parent / "playground" / "src" / "gemma_playground" / "examples"
SMALLEST = 240  # pixels on the shorter side; the generator makes smaller ones too


def _one_circle(scene: Scene) -> bool:
    return [item.shape for item in scene.items] == ["circle"] and scene.items[0].colour not in (
        "black",
        "white",
    )


def _three(scene: Scene) -> bool:
    return len(scene.items) == 3 and len({item.colour for item in scene.items}) == 3


def _one_star(scene: Scene) -> bool:
    return [item.shape for item in scene.items] == ["star"]


PICTURES: dict[str, Callable[[Scene], bool]] = {
    "circle": _one_circle,
    "shapes": _three,
    "star": _one_star,
}


def write_examples(folder: Path) -> None:
    """Write three held-out images and a sound, each the first of its series that meets the condition."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, fits in PICTURES.items():
        for number in count():
            rng = random.Random(f"{SEED}-{name}-{number}")
            scene = make_scene(rng)
            picture = draw(rng, scene)
            if fits(scene) and min(picture.size) >= SMALLEST:
                picture.save(folder / f"{name}.png", optimize=True)
                print(f"{name}.png: {', '.join(item.name for item in scene.items)}")
                break
    for number in count():
        sound, samples = sound_of(SEED + 1, number)
        if sound.beeps == 3:
            soundfile.write(folder / "beeps.wav", samples, RATE)
            print(f"beeps.wav: {sound.name}")
            break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m demo.examples", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    write_examples(parser.parse_args().folder)
