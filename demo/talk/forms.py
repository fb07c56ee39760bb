"""JSON on request."""

import json
import random
from collections.abc import Callable

from demo.talk.facts import NAMED, NUMBERS
from demo.talk.wording import Exchange, enumerate_words, vary
from demo.talk.words import ANIMALS, CITIES, COPY, NAMES

FIELDS: dict[str, Callable[[random.Random], int | str]] = {
    "name": lambda rng: rng.choice(NAMES),
    "age": lambda rng: rng.randint(1, 99),
    "city": lambda rng: rng.choice(CITIES),
    "colour": lambda rng: rng.choice((*NAMED, "black", "white", "purple")),
    "animal": lambda rng: rng.choice(ANIMALS),
    "count": lambda rng: rng.randint(1, 20),
    "word": lambda rng: rng.choice(COPY),
    "shape": lambda rng: rng.choice(("circle", "square", "triangle", "star")),
}
_OBJECT = (
    "Give me a JSON object with {}.", "Write a JSON object with {}.", "JSON with {}",
    "Make a JSON object with {}.", "Return JSON with {}.", "I need a JSON object with {}.",
    "Write JSON with {}.", "Put this into JSON: {}", "As JSON: {}", "Can you give me JSON with {}?",
    "A JSON object with {}, please.", "Output a JSON object with {}.", "Convert to JSON: {}",
    "Answer with a JSON object that has {}.",
)  # fmt: skip
_LIST = (
    "Give me a JSON list of {}.", "Write a JSON array with {}.", "JSON list: {}", "Make a JSON list of {}.",
    "Put {} into a JSON array.", "Return a JSON array of {}.", "A JSON list with {}, please.",
    "As a JSON list: {}",
)  # fmt: skip
_NUMBERS = ("the numbers 1 to {}", "the numbers from 1 to {}", "all numbers from 1 to {}")


def json_form(rng: random.Random) -> Exchange:
    """A JSON object or array of the values in the question."""
    return rng.choice((_object, _object, _object, _list, _numbers))(rng)


def _object(rng: random.Random) -> Exchange:
    """One to three properties, in the order of the question."""
    fields = {field: FIELDS[field](rng) for field in rng.sample(list(FIELDS), rng.choice((1, 2, 2, 3)))}
    form = rng.choice(("the {} {}", "{} {}", "{}: {}", "the {} {}"))
    parts = [form.format(field, value) for field, value in fields.items()]
    question = vary(rng, rng.choice(_OBJECT).format(enumerate_words(parts)), exact_end=True)
    if "color" in question:
        fields = {field.replace("colour", "color"): value for field, value in fields.items()}
    return Exchange(question, json.dumps(fields))


def _list(rng: random.Random) -> Exchange:
    items = rng.sample(rng.choice((NAMES, ANIMALS, COPY, NAMED)), rng.randint(2, 4))
    question = vary(rng, rng.choice(_LIST).format(enumerate_words(items)), exact_end=True)
    return Exchange(question, json.dumps(items))


def _numbers(rng: random.Random) -> Exchange:
    last = rng.randint(2, 10)
    numbers = rng.choice(_NUMBERS).format(rng.choice((str(last), NUMBERS[last])))
    return Exchange(vary(rng, rng.choice(_LIST[:6]).format(numbers)), json.dumps(list(range(1, last + 1))))
