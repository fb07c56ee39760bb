"""Sums, days and colours: questions about closed lists of facts, and follow-up questions."""

import random

from demo.talk.wording import Exchange, enumerate_words, vary

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MIXED = {
    ("red", "yellow"): "orange",
    ("blue", "yellow"): "green",
    ("red", "blue"): "purple",
    ("red", "white"): "pink",
    ("black", "white"): "grey",
}
COLOUR_OF = {
    "the sky": "blue", "the sea": "blue", "the ocean": "blue", "water": "blue", "grass": "green",
    "the grass": "green", "a leaf": "green", "a frog": "green", "a cucumber": "green", "a pea": "green",
    "a tree": "green", "the sun": "yellow", "a banana": "yellow", "a lemon": "yellow", "cheese": "yellow",
    "blood": "red", "a tomato": "red", "a strawberry": "red", "a cherry": "red", "a fire engine": "red",
    "a rose": "red", "snow": "white", "milk": "white", "salt": "white", "sugar": "white", "a cloud": "white",
    "a swan": "white", "coal": "black", "the night": "black", "a raven": "black", "a tyre": "black",
    "an orange": "orange", "a carrot": "orange", "a pumpkin": "orange", "a plum": "purple",
    "a violet": "purple",
    "an aubergine": "purple", "a pig": "pink", "a flamingo": "pink", "chocolate": "brown", "coffee": "brown",
    "wood": "brown", "earth": "brown", "an elephant": "grey", "a mouse": "grey", "gold": "yellow",
}  # fmt: skip
NAMED = ("red", "yellow", "blue", "green", "orange")
"""Colours for the request to name a number of colours."""

_PLUS = ("{a} + {b}", "{a}+{b}", "{a} plus {b}", "{wa} plus {wb}", "{wa} and {wb}", "{a} and {b}")
_MINUS = ("{a} - {b}", "{a}-{b}", "{a} minus {b}", "{wa} minus {wb}", "{a} − {b}")
_SUMS = (
    "What is {}?", "What is {}?", "How much is {}?", "Calculate {}.", "Compute {}.", "What does {} make?",
    "Can you tell me what {} is?", "What do you get for {}?", "Tell me {}.", "Do you know what {} is?",
    "Solve {}.", "I need to know {}.", "What is the result of {}?", "How many is {}?", "Work out {}.",
    "What is the answer to {}?",
)  # fmt: skip
_BARE = ("{}", "{} =", "{} = ?", "{}=", "{}?", "{}=?")
_SENTENCES = (
    "Add {a} and {b}.", "What is the sum of {a} and {b}?",
    "I have {a} apples and get {b} more. How many have I?", "What do {a} and {b} make?", "Sum {a} and {b}.",
    "Add {wa} and {wb}.", "Add {b} to {a}.",
)  # fmt: skip
_LESS = (
    "Subtract {b} from {a}.", "Take {b} from {a}.", "I have {a} apples and eat {b}. How many are left?",
    "What is the difference of {a} and {b}?", "Take {wb} away from {wa}.",
)  # fmt: skip
_MORE_SUMS = (
    "And {}?", "And what is {}?", "What about {}?", "And how much is {}?", "Now {}.", "Then what is {}?",
    "OK, and {}?", "and {}", "Next: {}", "How about {}?",
)  # fmt: skip
_GO_ON = ("Plus {b}?", "And plus {b}?", "Add {b}.", "Now add {b}.", "Add {b} to that.", "And {b} more?")


def _sum(rng: random.Random) -> tuple[dict[str, int | str], str, int]:
    """The fields of a wording, the operator and the result."""
    one, other, sign = rng.randint(0, 10), rng.randint(0, 10), rng.choice("+-")
    if sign == "-":
        one, other = max(one, other), min(one, other)
    fields: dict[str, int | str] = {"a": one, "b": other, "wa": NUMBERS[one], "wb": NUMBERS[other]}
    return fields, sign, one + other if sign == "+" else one - other


def _equation(fields: dict[str, int | str], sign: str, result: int) -> str:
    return f"{fields['a']} {sign} {fields['b']} = {result}."


def sums(rng: random.Random) -> Exchange:
    """A sum or difference of two numbers from 0 to 10; the result is not negative."""
    fields, sign, result = _sum(rng)
    way = rng.random()
    if way < 0.2:
        question = vary(rng, rng.choice(_SENTENCES if sign == "+" else _LESS).format(**fields))
    else:
        term = rng.choice(_PLUS if sign == "+" else _MINUS).format(**fields)
        frame = rng.choice(_BARE if way < 0.35 else _SUMS)
        question = frame.format(term) if way < 0.35 else vary(rng, frame.format(term))
    return Exchange(question, _equation(fields, sign, result), result)


def more_sums(rng: random.Random, before: Exchange) -> Exchange:
    """Another sum, or a sum with the last result."""
    if isinstance(before.value, int) and before.value <= 10 and rng.random() < 0.3:
        other, result = rng.randint(0, 10), before.value
        fields: dict[str, int | str] = {"a": result, "b": other}
        return Exchange(
            vary(rng, rng.choice(_GO_ON).format(**fields), lead=False),
            _equation(fields, "+", result + other),
            result + other,
        )
    fields, sign, result = _sum(rng)
    term = rng.choice(_PLUS[:4] if sign == "+" else _MINUS).format(**fields)
    question = vary(rng, rng.choice(_MORE_SUMS).format(term), lead=False)
    return Exchange(question, _equation(fields, sign, result), result)


_AFTER = (
    "Which day comes {} {day}?", "What day comes {} {day}?", "What comes {} {day}?", "Which day is {} {day}?",
    "What day is {} {day}?", "Name the day {} {day}.", "What is the day {} {day}?",
    "Tell me the day {} {day}.", "Which weekday comes {} {day}?", "The day {} {day} is?",
)  # fmt: skip
_TOMORROW = (
    "If today is {day}, what day is {}?", "Today is {day}. What day is {}?", "Today is {day}. What is {}?",
    "It is {day} today. Which day is {}?", "If it is {day} today, which day is {}?",
)  # fmt: skip
_MORE_DAYS = (
    "And {} {day}?",
    "and {} {day}",
    "What about {} {day}?",
    "And which day comes {} {day}?",
    "OK, and {} {day}?",
)
_SAME_WAY = ("And {day}?", "What about {day}?", "and {day}", "How about {day}?")
_WEEK: tuple[tuple[tuple[str, ...], str, int | str | None], ...] = (
    (
        ("How many days are in a week?", "How many days has a week?", "How many days does a week have?",
         "How long is a week in days?", "How many days are there in one week?",
         "How many days are there in a week?"),
        "A week has seven days.", 7,
    ),
    (
        ("Which days are the weekend?", "What days are on the weekend?", "When is the weekend?",
         "Which days make the weekend?", "What are the days of the weekend?", "Name the weekend days."),
        "Saturday and Sunday are the weekend.", None,
    ),
    (
        ("Name the days of the week.", "What are the days of the week?", "List the days of the week.",
         "Tell me all days of the week.", "Which days are in a week?",
         "List all weekdays from Monday to Sunday."),
        f"{enumerate_words(DAYS)}.", None,
    ),
)  # fmt: skip


def _beside(day: int, word: str) -> tuple[str, int | str]:
    """The day after or before a day, as a sentence and as a word."""
    other = DAYS[(day + (1 if word == "after" else -1)) % 7]
    return f"{other} comes {word} {DAYS[day]}.", other


def days(rng: random.Random) -> Exchange:
    """A question about the order of the days, the week or the weekend."""
    way, day, after = rng.random(), rng.randrange(7), rng.random() < 0.6
    if way < 0.25:
        wordings, answer, value = rng.choice(_WEEK)
        return Exchange(vary(rng, rng.choice(wordings)), answer, value)
    if way < 0.5:
        word, step = ("tomorrow", 1) if after else ("yesterday", -1)
        other = DAYS[(day + step) % 7]
        question = rng.choice(_TOMORROW).format(word, day=DAYS[day])
        return Exchange(
            vary(rng, question), f"{word.capitalize()} {'is' if after else 'was'} {other}.", other
        )
    return _day(rng, day, "after" if after else "before", _AFTER)


def _day(rng: random.Random, day: int, word: str, wordings: tuple[str, ...]) -> Exchange:
    answer, value = _beside(day, word)
    lead = wordings is _AFTER
    return Exchange(vary(rng, rng.choice(wordings).format(word, day=DAYS[day]), lead=lead), answer, value)


def more_days(rng: random.Random, before: Exchange) -> Exchange:
    """A follow-up question: ``And after Tuesday?``, or ``And Friday?`` if the relation is clear."""
    day, word = rng.randrange(7), rng.choice(("after", "before"))
    said = next((way for way in ("after", "before") if f"comes {way}" in before.answer), "")
    if said and rng.random() < 0.4:
        return _day(rng, day, said, _SAME_WAY)
    return _day(rng, day, word, _MORE_DAYS)


_COLOURS = (
    "What colour is {}?", "What colour is {}?", "Which colour is {}?", "What is the colour of {}?",
    "What colour has {}?", "Which colour does {} have?", "Tell me the colour of {}.",
    "Do you know what colour {} is?", "Name the colour of {}.", "The colour of {}?",
    "What colour would you say {} is?",
)  # fmt: skip
_MORE_COLOURS = ("And {}?", "What about {}?", "and {}", "And what colour is {}?", "How about {}?")
_MIX = (
    "What do {} and {} make?", "What colour do {} and {} make?", "What do you get when you mix {} and {}?",
    "Mix {} and {}.", "Which colour comes from {} and {}?", "What happens if I mix {} with {}?",
    "What is {} plus {}?", "Which colour do I get from {} and {}?", "I mix {} and {} paint. What do I get?",
)  # fmt: skip
_MORE_MIX = ("And {} and {}?", "What about {} and {}?", "and {} with {}", "And what do {} and {} make?")
_NAME = (
    "Name {} colours.", "Tell me {} colours.", "List {} colours.", "Give me {} colours.",
    "Can you name {} colours?", "Say {} colours.", "Which {} colours do you know?",
)  # fmt: skip
_FAVOURITE = (
    "What is your favourite colour?", "Which colour do you like?", "Do you have a favourite colour?",
    "Which colour do you like best?", "What colour do you like?",
)  # fmt: skip
_RAINBOW = (
    "How many colours has a rainbow?", "How many colours are in a rainbow?",
    "How many colours does a rainbow have?", "How many colours are there in the rainbow?",
)  # fmt: skip


def colours(rng: random.Random) -> Exchange:
    """A question about the colour of a thing or a mixture, or for a number of colours."""
    way = rng.random()
    if way < 0.55:
        return _colour_of(rng, _COLOURS)
    if way < 0.75:
        return _mix(rng, _MIX)
    if way < 0.9:
        return _name(rng)
    if way < 0.95:
        return Exchange(vary(rng, rng.choice(_FAVOURITE)), "I like blue.", "blue")
    return Exchange(vary(rng, rng.choice(_RAINBOW)), "A rainbow has seven colours.", 7)


def more_colours(rng: random.Random, before: Exchange) -> Exchange:
    """A follow-up question about another thing or mixture."""
    return _mix(rng, _MORE_MIX) if " make " in before.answer else _colour_of(rng, _MORE_COLOURS)


def _colour_of(rng: random.Random, wordings: tuple[str, ...]) -> Exchange:
    thing, colour = rng.choice(list(COLOUR_OF.items()))
    question = vary(rng, rng.choice(wordings).format(thing), lead=wordings is _COLOURS)
    return Exchange(question, f"{thing[0].upper()}{thing[1:]} is {colour}.", colour)


def _mix(rng: random.Random, wordings: tuple[str, ...]) -> Exchange:
    pair, mixed = rng.choice(list(MIXED.items()))
    one, other = rng.sample(pair, 2)
    question = vary(rng, rng.choice(wordings).format(one, other), lead=wordings is _MIX)
    return Exchange(question, f"{one.capitalize()} and {other} make {mixed}.", mixed)


def _name(rng: random.Random) -> Exchange:
    count = rng.randint(2, len(NAMED))
    question = rng.choice(_NAME).format(rng.choice((NUMBERS[count], str(count))))
    return Exchange(vary(rng, question), f"{enumerate_words(NAMED[:count]).capitalize()}.")


def count(rng: random.Random) -> Exchange:
    """Counting from one to at most ten."""
    last = rng.randint(2, 10)
    text = rng.choice(
        ("Count to {}.", "Can you count to {}?", "Count from 1 to {}.", "Please count up to {}.")
    )
    text = text.format(rng.choice((NUMBERS[last], str(last))))
    return Exchange(vary(rng, text), f"{', '.join(str(i) for i in range(1, last + 1))}.")
