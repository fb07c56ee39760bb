"""Questions about images, each with exactly one correct answer."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demo.pictures import COLOURS, SHAPES, Item, Scene

NUMBERS = ("no", "one", "two", "three", "four")
ORDINALS = ("first", "second", "third")
EMPTY = "I see an empty picture."

DESCRIBE = (
    "What do you see in this image?",
    "What do you see?",
    "What is in this picture?",
    "What is in the image?",
    "Describe the picture.",
    "Describe this image.",
    "What can you see in this picture?",
    "Tell me what you see.",
    "What does this picture show?",
    "What is this?",
    "What's in this image?",
    "Please describe what you see.",
    "What is on the picture?",
    "Which shapes do you see?",
    "Look at this picture. What is there?",
)
COUNT = (
    "How many shapes are there?",
    "How many shapes do you see?",
    "How many shapes are in this picture?",
    "Count the shapes.",
    "How many objects are there?",
    "How many things are in the image?",
)


@dataclass(frozen=True)
class Asked:
    """A question about a picture.

    Args:
        skill: group in the evaluation.
        question: the text of the user.
        answer: the expected answer.
    """

    skill: str
    question: str
    answer: str


Asker = Callable[[random.Random, Scene], Asked | None]
"""Asks a question about a scene; ``None`` if the question has no clear answer."""


def describe(rng: random.Random, scene: Scene) -> Asked:
    """Ask for a description of all shapes, from left to right."""
    return Asked("describe", rng.choice(DESCRIBE), description(scene))


def description(scene: Scene) -> str:
    """One sentence: "I see a red circle, a blue square and an orange star."."""
    names = [with_article(item.name) for item in scene.items]
    if not names:
        return EMPTY
    return f"I see {' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)}."


def with_article(name: str) -> str:
    """``a red circle``, ``an orange star``."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def count(rng: random.Random, scene: Scene) -> Asked:
    """Ask for the number of all shapes."""
    return Asked("count", rng.choice(COUNT), _there_are(len(scene.items), "shape"))


def count_some(rng: random.Random, scene: Scene) -> Asked:
    """Ask for the number of shapes of one kind, or of one colour."""
    if rng.random() < 0.6:
        shape = _mostly(rng, [item.shape for item in scene.items], SHAPES)
        number, what = sum(item.shape == shape for item in scene.items), shape
    else:
        colour = _mostly(rng, [item.colour for item in scene.items], tuple(COLOURS))
        number, what = sum(item.colour == colour for item in scene.items), f"{colour} shape"
    question = rng.choice(("How many {}s are there?", "How many {}s do you see?", "Count the {}s."))
    return Asked("count some", question.format(what), _there_are(number, what))


def _there_are(number: int, what: str) -> str:
    return f"There {'is' if number == 1 else 'are'} {NUMBERS[number]} {what}{'' if number == 1 else 's'}."


def colour_of(rng: random.Random, scene: Scene) -> Asked | None:
    """Ask for the colour of a shape that occurs at most once."""
    if len(scene.items) == 1 and rng.random() < 0.3:
        question = rng.choice(("What colour is it?", "What color is it?", "Which colour is it?"))
        return Asked("colour", question, f"It is {scene.items[0].colour}.")
    shape = _mostly(rng, once(item.shape for item in scene.items), SHAPES)
    there = [item for item in scene.items if item.shape == shape]
    if len(there) > 1:
        return None
    question = rng.choice(
        (
            "What colour is the {}?",
            "What color is the {}?",
            "Which colour is the {}?",
            "What is the colour of the {}?",
            "Which colour does the {} have?",
        )
    )
    answer = f"The {shape} is {there[0].colour}." if there else f"I see no {shape}."
    return Asked("colour", question.format(shape), answer)


def shape_of(rng: random.Random, scene: Scene) -> Asked | None:
    """Ask for the shape of a colour that occurs at most once."""
    if len(scene.items) == 1 and rng.random() < 0.4:
        question = rng.choice(("What shape is it?", "Which shape is it?", "What shape is this?"))
        return Asked("shape", question, f"It is a {scene.items[0].shape}.")
    colour = _mostly(rng, once(item.colour for item in scene.items), tuple(COLOURS))
    there = [item for item in scene.items if item.colour == colour]
    if len(there) > 1:
        return None
    question = rng.choice(("Which shape is {}?", "What shape is {}?", "What is {}?", "Which one is {}?"))
    answer = f"The {there[0].shape} is {colour}." if there else f"I see nothing {colour}."
    return Asked("shape", question.format(colour), answer)


def is_there(rng: random.Random, scene: Scene) -> Asked:
    """Ask whether a shape is in the image; about half of the answers are yes."""
    shape, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    if scene.items and rng.random() < 0.7:
        item = rng.choice(scene.items)  # the shape or the colour is in the image
        keep = rng.random()
        shape = item.shape if keep < 0.75 else shape
        colour = item.colour if keep > 0.25 or keep < 0.1 else colour
    wanted = rng.choice((shape, f"{colour} {shape}", f"{colour} {shape}"))
    found = any(item.name.endswith(wanted) for item in scene.items)
    question = rng.choice(
        ("Is there {}?", "Do you see {}?", "Can you see {}?", "Is there {} in the picture?")
    )
    return Asked("is there", question.format(with_article(wanted)), "Yes." if found else "No.")


def beside(rng: random.Random, scene: Scene) -> Asked | None:
    """Ask for the next shape to the left or to the right."""
    if not scene.items:
        return None
    at = rng.randrange(len(scene.items))
    side, step = rng.choice((("left", -1), ("right", 1)))
    name = _shortest(scene, scene.items[at])
    question = rng.choice(
        ("What is {} of the {}?", "What is to the {} of the {}?", "Which shape is {} of the {}?")
    )
    neighbours = scene.items[at + step : at + step + 1] if at + step >= 0 else ()
    answer = f"{with_article(neighbours[0].name)}.".capitalize() if neighbours else "Nothing."
    return Asked("beside", question.format(side, name), answer)


def _shortest(scene: Scene, item: Item) -> str:
    """The name of a shape, with its colour if another has the same kind."""
    return item.shape if Counter(i.shape for i in scene.items)[item.shape] == 1 else item.name


def where(rng: random.Random, scene: Scene) -> Asked | None:
    """Ask for the position in a grid of nine cells, if the shape is clearly in one of them."""
    plain = [
        item
        for item in scene.items
        if all(min(abs(v - 1 / 3), abs(v - 2 / 3)) > 0.04 for v in (item.x, item.y))
    ]
    if not plain:
        return None
    item = rng.choice(plain)
    question = rng.choice(("Where is the {}?", "Where do you see the {}?", "Where in the picture is the {}?"))
    return Asked("where", question.format(_shortest(scene, item)), f"It is {_place(item)}.")


def _place(item: Item) -> str:
    down = ("top", "", "bottom")[int(item.y * 3)]
    across = ("left", "", "right")[int(item.x * 3)]
    if not down and not across:
        return "in the middle"
    if not down:
        return f"on the {across}"
    return f"at the {down} {across}".rstrip()


def size_of(rng: random.Random, scene: Scene) -> Asked | None:
    """Ask for the size of a single shape that is clearly big or small."""
    if len(scene.items) != 1 or 0.33 < scene.items[0].size < 0.55:
        return None
    shape = scene.items[0].shape
    question = rng.choice(("Is the {} big or small?", "How big is the {}?", "Is the {} small or big?"))
    return Asked("size", question.format(shape), f"It is {'big' if scene.items[0].size > 0.5 else 'small'}.")


def biggest(rng: random.Random, scene: Scene) -> Asked | None:
    """Ask for the biggest of several shapes, if one is clearly the biggest."""
    ordered = sorted(scene.items, key=lambda item: -item.size)
    if len(ordered) < 2 or ordered[0].size < 1.35 * ordered[1].size:
        return None
    question = rng.choice(
        ("Which shape is the biggest?", "What is the biggest shape?", "Which one is the largest?")
    )
    return Asked("biggest", question, f"The {ordered[0].name}.")


def in_one_word(rng: random.Random, scene: Scene) -> Asked | None:
    """Ask a question for turns with the system message "Answer in one word."."""
    if len(scene.items) != 1:
        number = len(scene.items)
        return Asked(
            "one word", rng.choice(COUNT), ("Zero", *(n.capitalize() for n in NUMBERS[1:]))[number] + "."
        )
    item = scene.items[0]
    if rng.random() < 0.5:
        return Asked(
            "one word",
            rng.choice(("What colour is it?", f"What colour is the {item.shape}?")),
            f"{item.colour.capitalize()}.",
        )
    return Asked(
        "one word",
        rng.choice(("What shape is it?", "What do you see?", "What is this?")),
        f"{item.shape.capitalize()}.",
    )


def once(values: object) -> list[str]:
    """The values that occur once."""
    return [value for value, times in Counter(values).items() if times == 1]  # type: ignore[call-overload]


def _mostly(rng: random.Random, there: list[str], every: Sequence[str]) -> str:
    """Mostly a value from the image, sometimes any value."""
    return rng.choice(there) if there and rng.random() < 0.8 else rng.choice(every)
