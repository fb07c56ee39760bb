"""Conversations about pictures and sounds: questions put into turns."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from demo import question_sampling, questions, sounds
from demo.chat import talk
from demo.conversation import Conversation
from demo.pictures import Scene
from demo.questions import Asked
from demo.sounds import Sound
from gemma_wire import AudioPart, ImagePart, Message, Part, TextPart

HELPFUL = ("You are a helpful assistant.", "You are a helpful AI assistant.", "Be helpful and polite.")
ONE_WORD = ("Answer in one word.", "Reply with one word.", "Use only one word.")


@dataclass(frozen=True)
class Lesson:
    """A conversation with the pictures and sounds that it is about.

    Args:
        conversation: whose assistant's messages are what is to be learnt.
        pictures: rows of the pool, in the order of their places.
        sounds: likewise.
        raw: as a raw prompt, without turns; the answer begins on a new line.
    """

    conversation: Conversation
    pictures: tuple[int, ...] = ()
    sounds: tuple[int, ...] = ()
    raw: bool = False


def chat_lesson(rng: random.Random) -> Lesson:
    """Without a picture or a sound; mostly several conversations, for a longer lesson teaches more."""
    conversation = talk(rng)
    if len(conversation.messages) == 2 and not conversation.tools and rng.random() < 0.06:
        return Lesson(conversation, raw=True)
    messages = list(conversation.messages)
    if _plain(conversation):
        for said in [talk(rng) for _ in range(rng.choice((0, 1, 2, 3)))]:
            messages += _plain(said) if said.skill != "memory" else ()  # it would know what was told before
    return Lesson(replace(conversation, messages=tuple(messages)))


def _plain(said: Conversation) -> tuple[Message, ...]:
    """Its messages, unless it has tools or a system turn: those hold for all that is said after them."""
    ordinary = not said.tools and all(message.role in ("user", "assistant") for message in said.messages)
    return said.messages if ordinary else ()


def picture_lesson(rng: random.Random, scenes: Sequence[Scene]) -> Lesson:
    """One of the kinds of conversation about pictures."""
    row = rng.randrange(len(scenes))
    kind = rng.choices(("one", "one word", "several", "another"), weights=(70, 6, 12, 12))[0]
    if kind == "several":
        return several_lesson(rng, scenes)
    if kind == "one word":
        asked = [a for a in (questions.in_one_word(rng, scenes[row]) for _ in range(rng.randint(1, 3))) if a]
        system = Message(role="system", content=rng.choice(ONE_WORD))
        return _about([row], [system, *_picture_turns(rng, asked)])
    messages = [*_opening(rng), *_picture_turns(rng, _series(rng, scenes[row]))]
    if kind == "one":
        return _about([row], messages + _aside(rng))
    other = rng.randrange(len(scenes))
    return _about([row, other], [*messages, *_picture_turns(rng, _series(rng, scenes[other], 3))])


def colour_lesson(rng: random.Random, scenes: Sequence[Scene]) -> Lesson:
    """The colour of one of several shapes: the first look from a word to what stands in a picture."""
    while True:
        row = rng.randrange(len(scenes))
        asked = questions.colour_of(rng, scenes[row])
        if asked and len(scenes[row].items) > 1:
            return _about([row], _picture_turns(rng, [asked]))


def look_lesson(rng: random.Random, scenes: Sequence[Scene]) -> Lesson:
    """A single question about one picture, which no description before it answers already."""
    row = rng.randrange(len(scenes))
    asked = [question_sampling.look(rng, scenes[row])]
    follows = question_sampling.follow_up(rng, scenes[row], asked[0]) if rng.random() < 0.5 else None
    return _about([row], _picture_turns(rng, [*asked, follows] if follows else asked))


def several_lesson(rng: random.Random, scenes: Sequence[Scene]) -> Lesson:
    """Two or three pictures in one turn."""
    rows = [rng.randrange(len(scenes)) for _ in range(rng.choice((2, 2, 3)))]
    asked: list[Asked] = []
    for _ in range(8):
        one = question_sampling.which_picture(rng, [scenes[row] for row in rows])
        asked += [one] if one else []
        if len(asked) == 3:
            break
    messages: list[Message] = []
    for number, one in enumerate(
        asked
        or [Asked("several", "What do you see in the first picture?", questions.description(scenes[rows[0]]))]
    ):
        text = worded(rng, one.question)
        pictures = [ImagePart() for _ in rows]
        first = (*pictures, TextPart(text=text)) if rng.random() < 0.5 else (TextPart(text=text), *pictures)
        messages.append(Message(role="user", content=text if number else first))
        messages.append(Message(role="assistant", content=one.answer))
    return _about(rows, messages)


def sound_lesson(rng: random.Random, heard: Sequence[Sound]) -> Lesson:
    """A sound and some questions about it."""
    row = rng.randrange(len(heard))
    pairs = sounds.ask(rng, heard[row])
    rng.shuffle(pairs)
    asked = [Asked("sound", question, answer) for question, answer in pairs[: rng.randint(1, 4)]]
    messages = [*_opening(rng), *_turns(rng, asked, AudioPart())]
    return Lesson(Conversation("sound", tuple(messages)), sounds=(row,))


def _about(rows: Sequence[int], messages: Sequence[Message]) -> Lesson:
    return Lesson(Conversation("picture", tuple(messages)), pictures=tuple(rows))


def _opening(rng: random.Random) -> list[Message]:
    """What comes before the picture: mostly nothing."""
    roll = rng.random()
    if roll < 0.06:
        return [Message(role="system", content=rng.choice(HELPFUL))]
    if roll < 0.14:
        before = _plain(talk(rng))
        return list(before) if len(before) <= 4 else []
    return []


def _aside(rng: random.Random) -> list[Message]:
    """Now and then something else is said after the picture: thanks, a sum."""
    said = talk(rng)
    plain = len(said.messages) == 2 and not said.tools and said.skill not in ("no_image", "no_sound")
    return list(said.messages) if plain and rng.random() < 0.12 else []


def _series(rng: random.Random, scene: Scene, most: int = 6) -> list[Asked]:
    """Questions about one scene, one after the other; now and then one that follows from the last."""
    asked: list[Asked] = []
    for _ in range(rng.randint(1, most)):
        follows = question_sampling.follow_up(rng, scene, asked[-1]) if asked and rng.random() < 0.5 else None
        asked.append(follows or question_sampling.ask(rng, scene))
    return asked


def _picture_turns(rng: random.Random, asked: Sequence[Asked]) -> list[Message]:
    if rng.random() < 0.06 and asked[0].skill == "describe":
        asked = [Asked("describe", "", asked[0].answer), *asked[1:]]  # a picture without a word
    return _turns(rng, asked, ImagePart())


def _turns(rng: random.Random, asked: Sequence[Asked], medium: Part) -> list[Message]:
    """Question and answer in turns; the medium stands in the first, before the words or after them."""
    messages: list[Message] = []
    for number, one in enumerate(asked):
        words = [TextPart(text=worded(rng, one.question))] if one.question else []
        parts = (medium, *words) if rng.random() < 0.5 else (*words, medium)
        messages.append(Message(role="user", content=words[0].text if number else parts))
        messages.append(Message(role="assistant", content=one.answer))
    return messages


def worded(rng: random.Random, question: str) -> str:
    """As people type: now and then without capitals, or without the mark at its end."""
    roll = rng.random()
    if roll < 0.12:
        return question.lower()
    if roll < 0.2:
        return question.rstrip("?.")
    return question.lower().rstrip("?.") if roll < 0.26 else question
