"""What takes words over from the question: repeat after me, a story about a cat, what is my name."""

import random
import string

from demo.talk.facts import NAMED
from demo.talk.wording import Exchange, a, vary
from demo.talk.words import ANIMALS, COPY, NAMES, PEOPLE, THINGS

_REPEAT = (
    "Repeat after me: {}", "Repeat: {}", "Say {}", "Please say {}", "Say: {}", "Repeat the words: {}",
    "Echo {}", "Repeat after me: {}", "Please repeat: {}", "Copy this: {}", "Say this: {}",
    "Repeat exactly: {}", "echo: {}", "Write {}", "Can you say: {}", "Repeat this: {}", "Type {}", "Print {}",
    "Now repeat after me: {}", "Read out: {}",
)  # fmt: skip
_QUOTED = (
    'Say "{}".', 'Repeat "{}"', 'Please say "{}".', 'Can you say "{}"?', 'Repeat after me: "{}"',
    'Write "{}"', 'Repeat the words "{}".', 'Echo "{}"', 'Say: "{}"', "Say '{}'",
)  # fmt: skip
_MORE_REPEAT = ("Now say {}", "And now: {}", "Now repeat: {}", "And say {}")

STORY = (
    "Once upon a time there was a small star. It was alone in the dark sky. One night it met the moon. "
    "They shone together for ever."
)
SECOND_STORY = (
    "Once upon a time there was a little boat. It wanted to see the sea. The wind helped it along. "
    "In the evening it came home happy."
)
_ABOUT_ANIMAL = (
    "Once upon a time there was {a}. The {it} was looking for a friend. It met a little bird. "
    "They played all day and were happy."
)
_ABOUT_PERSON = (
    "Once upon a time there was {a}. The {it} lost a golden ring. A kind fish brought it back. "
    "The {it} gave a big party."
)
_ABOUT_THING = (
    "Once upon a time there was {a}. The {it} belonged to a girl. One day it was gone. "
    "The girl looked everywhere and found it under her bed."
)
_STORIES = ((ANIMALS, _ABOUT_ANIMAL), (PEOPLE, _ABOUT_PERSON), (THINGS, _ABOUT_THING))
_TELL = (
    "Tell me a story", "Tell me a story.", "Tell me a short story.", "Can you tell me a story?",
    "I want a story.", "Please tell me a story.", "Write a story.", "Write a short story.",
    "A story, please.", "Tell a story.", "Make up a story.", "Tell me a bedtime story.",
    "Do you know a story?", "Give me a story.", "story", "I want to hear a story.", "Read me a story.",
    "Tell me a nice story.", "Write me a story.", "Tell me a tale.",
)  # fmt: skip
_TELL_ABOUT = (
    "Tell me a story about {}.", "Tell me a short story about {}.", "Write a story about {}.",
    "A story about {}", "Can you tell me a story about {}?", "Write a short story about {}.",
    "Do you know a story about {}?", "I want a story about {}.", "Please tell me a story about {}.",
    "Tell a story about {}.", "Make up a story about {}.", "Give me a story about {}.",
    "Tell me a tale of {}.",
)  # fmt: skip
_MORE_STORY = (
    "Another one!", "Another story, please.", "Tell me another story.", "Another one, please.", "One more!",
    "Another!", "One more story.", "Tell me another one.", "A different story.", "Do you know another story?",
    "another",
)  # fmt: skip


def words(rng: random.Random) -> str:
    """One to eight words, some of them mere letters."""
    return " ".join(_word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 6, 8))))


def _word(rng: random.Random) -> str:
    way = rng.random()
    if way < 0.15:
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 4)))
    word = rng.choice(COPY)
    return word.capitalize() if way < 0.25 else word


def repeat(rng: random.Random) -> Exchange:
    """Words to say again."""
    text = words(rng)
    return Exchange(
        vary(rng, rng.choice(_QUOTED if rng.random() < 0.3 else _REPEAT).format(text), exact_end=True), text
    )


def more_repeat(rng: random.Random, before: Exchange) -> Exchange:  # noqa: ARG001 - every follow-up gets it
    """Repeat other words."""
    text = words(rng)
    return Exchange(rng.choice(_MORE_REPEAT).format(text), text)


def story(rng: random.Random) -> Exchange:
    """The standard story, or a story about the requested subject."""
    if rng.random() < 0.4:
        return Exchange(vary(rng, rng.choice(_TELL)), STORY)
    heroes, text = rng.choice(_STORIES)
    hero = rng.choice(heroes)
    whom = a(rng.choice(("little", "small"))) + " " + hero if rng.random() < 0.2 else a(hero)
    return Exchange(vary(rng, rng.choice(_TELL_ABOUT).format(whom)), text.format(a=a(hero), it=hero))


def more_story(rng: random.Random, before: Exchange) -> Exchange:  # noqa: ARG001 - every follow-up gets it
    """Another story."""
    return Exchange(vary(rng, rng.choice(_MORE_STORY), lead=False), SECOND_STORY)


_MY_NAME = (
    "My name is {}.", "I am {}.", "Hello, I am {}.", "Hi, my name is {}.", "I am called {}.",
    "You can call me {}.", "Call me {}.", "Hello! My name is {}.", "Hi! I'm {}",
)  # fmt: skip
_WHOSE_NAME = (
    "What is my name?", "Who am I?", "Do you know my name?", "What am I called?", "Do you remember my name?",
    "Tell me my name.", "And what is my name?", "Say my name.",
)  # fmt: skip
_MY_COLOUR = ("My favourite colour is {}.", "I like {}.", "I love {}.", "The colour I like best is {}.")
_WHOSE_COLOUR = (
    "What is my favourite colour?", "Which colour do I like?", "Do you remember my favourite colour?",
    "What colour do I like?", "Tell me my favourite colour.",
)  # fmt: skip


def remember(rng: random.Random) -> tuple[Exchange, Exchange]:
    """A statement of the user about themselves, and a later question about it."""
    if rng.random() < 0.65:
        name = rng.choice(NAMES)
        told = Exchange(
            vary(rng, rng.choice(_MY_NAME).format(name), exact_end=True), f"Nice to meet you, {name}!"
        )
        return told, Exchange(vary(rng, rng.choice(_WHOSE_NAME), lead=False), f"Your name is {name}.", name)
    colour = rng.choice((*NAMED, "purple", "black", "white", "pink"))
    told = Exchange(
        vary(rng, rng.choice(_MY_COLOUR).format(colour)), f"{colour.capitalize()} is a nice colour."
    )
    asked = vary(rng, rng.choice(_WHOSE_COLOUR), lead=False)
    return told, Exchange(asked, f"Your favourite colour is {colour}.", colour)


def not_told(rng: random.Random) -> Exchange:
    """A question about something that the user has not told."""
    if rng.random() < 0.6:
        return Exchange(vary(rng, rng.choice(_WHOSE_NAME)), "You have not told me your name.")
    return Exchange(vary(rng, rng.choice(_WHOSE_COLOUR)), "You have not told me your favourite colour.")
