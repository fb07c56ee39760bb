"""Chooses questions about a scene, and follow-up questions."""

import random
from collections.abc import Mapping, Sequence

from demo.pictures import Scene
from demo.questions import (
    ORDINALS,
    Asked,
    Asker,
    beside,
    biggest,
    colour_of,
    count,
    count_some,
    describe,
    description,
    is_there,
    once,
    shape_of,
    size_of,
    where,
    with_article,
)

ASKERS: dict[Asker, float] = {
    describe: 3.0,
    count: 1.5,
    count_some: 1.0,
    colour_of: 1.5,
    shape_of: 1.2,
    is_there: 1.5,
    beside: 1.2,
    where: 0.8,
    size_of: 0.4,
    biggest: 0.5,
}


LOOKS: dict[Asker, float] = {
    colour_of: 4.0,
    shape_of: 2.0,
    is_there: 2.0,
    beside: 2.0,
    where: 1.5,
    count_some: 2.0,
    size_of: 0.5,
    biggest: 0.5,
    describe: 0.5,
    count: 0.3,
}
"""Weights as in ``ASKERS``, but mostly for questions whose answer is not in a description."""


def ask(rng: random.Random, scene: Scene, askers: Mapping[Asker, float] = ASKERS) -> Asked:
    """One question that has a clear answer for the scene."""
    while True:
        (asker,) = rng.choices(list(askers), list(askers.values()))
        asked = asker(rng, scene)
        if asked is not None:
            return asked


def look(rng: random.Random, scene: Scene) -> Asked:
    """A question whose answer is mostly not in a description; see ``LOOKS``."""
    return ask(rng, scene, LOOKS)


def follow_up(rng: random.Random, scene: Scene, before: Asked) -> Asked | None:
    """A short question that depends on the one before it: "And the square?"."""
    shapes = once(item.shape for item in scene.items)
    if before.skill != "colour" or not before.answer.startswith("The ") or len(shapes) < 2:
        return None
    shape = rng.choice([s for s in shapes if s not in before.question] or shapes)
    colour = next(item.colour for item in scene.items if item.shape == shape)
    question = rng.choice(("And the {}?", "and the {}?", "What about the {}?", "And what about the {}?"))
    return Asked("follow-up", question.format(shape), f"The {shape} is {colour}.")


def which_picture(rng: random.Random, scenes: Sequence[Scene]) -> Asked | None:
    """Ask which of several images shows a shape, or what one of them shows."""
    at = rng.randrange(len(scenes))
    if rng.random() < 0.5:
        return Asked(
            "several",
            rng.choice(
                ("What do you see in the {} picture?", "What is in the {} image?", "Describe the {} picture.")
            ).format(ORDINALS[at]),
            description(scenes[at]),
        )
    if not scenes[at].items:
        return None
    item = rng.choice(scenes[at].items)
    wanted = rng.choice((item.shape, item.name))
    if sum(any(i.name.endswith(wanted) for i in scene.items) for scene in scenes) > 1:
        return None
    question = rng.choice(
        ("Which one shows {}?", "Which picture shows {}?", "In which picture is {}?", "Where is {}?")
    )
    return Asked("several", question.format(with_article(wanted)), f"The {ORDINALS[at]} picture.")
