"""Generates lessons: conversations about images and sounds."""

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
    """A conversation with its images and sounds.

    Args:
        conversation: the assistant's messages are the training targets.
        pictures: rows of the pool of images, in the order of the prompt.
        sounds: rows of the pool of sounds, in the order of the prompt.
        raw: a raw prompt without turns; the answer begins on a new line.
    """

    conversation: Conversation
    pictures: tuple[int, ...] = ()
    sounds: tuple[int, ...] = ()
    raw: bool = False


def chat_lesson(rng: random.Random) -> Lesson:
    """A lesson without images and sounds; mostly several conversations: longer lessons train better."""
    conversation = talk(rng)
    if len(conversation.messages) == 2 and not conversation.tools and rng.random() < 0.06:
        return Lesson(conversation, raw=True)
    messages = list(conversation.messages)
    if _plain(conversation):
        for said in [talk(rng) for _ in range(rng.choice((0, 1, 2, 3)))]:
            messages += (
                _plain(said) if said.skill != "memory" else ()
            )  # it would know the name that was told before
    return Lesson(replace(conversation, messages=tuple(messages)))


def _plain(said: Conversation) -> tuple[Message, ...]:
    """The messages; empty if there are tools or a system message, which apply to all later turns."""
    ordinary = not said.tools and all(message.role in ("user", "assistant") for message in said.messages)
    return said.messages if ordinary else ()


def picture_lesson(rng: random.Random, scenes: Sequence[Scene]) -> Lesson:
    """A conversation of a random kind about one or several images."""
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
    """A question about the colour of one of several shapes: the simplest question that refers to a shape."""
    while True:
        row = rng.randrange(len(scenes))
        asked = questions.colour_of(rng, scenes[row])
        if asked and len(scenes[row].items) > 1:
            return _about([row], _picture_turns(rng, [asked]))


def look_lesson(rng: random.Random, scenes: Sequence[Scene]) -> Lesson:
    """A question about one image without a description before it; sometimes with a follow-up."""
    row = rng.randrange(len(scenes))
    asked = [question_sampling.look(rng, scenes[row])]
    follows = question_sampling.follow_up(rng, scenes[row], asked[0]) if rng.random() < 0.5 else None
    return _about([row], _picture_turns(rng, [*asked, follows] if follows else asked))


def several_lesson(rng: random.Random, scenes: Sequence[Scene]) -> Lesson:
    """Questions about two or three images in one turn."""
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
    """Questions about one sound."""
    row = rng.randrange(len(heard))
    pairs = sounds.ask(rng, heard[row])
    rng.shuffle(pairs)
    asked = [Asked("sound", question, answer) for question, answer in pairs[: rng.randint(1, 4)]]
    messages = [*_opening(rng), *_turns(rng, asked, AudioPart())]
    return Lesson(Conversation("sound", tuple(messages)), sounds=(row,))


def _about(rows: Sequence[int], messages: Sequence[Message]) -> Lesson:
    return Lesson(Conversation("picture", tuple(messages)), pictures=tuple(rows))


def _opening(rng: random.Random) -> list[Message]:
    """Messages before the image: mostly none."""
    roll = rng.random()
    if roll < 0.06:
        return [Message(role="system", content=rng.choice(HELPFUL))]
    if roll < 0.14:
        before = _plain(talk(rng))
        return list(before) if len(before) <= 4 else []
    return []


def _aside(rng: random.Random) -> list[Message]:
    """Sometimes another conversation after the image: thanks, a sum."""
    said = talk(rng)
    plain = len(said.messages) == 2 and not said.tools and said.skill not in ("no_image", "no_sound")
    return list(said.messages) if plain and rng.random() < 0.12 else []


def _series(rng: random.Random, scene: Scene, most: int = 6) -> list[Asked]:
    """Questions about one scene, some of them follow-up questions."""
    asked: list[Asked] = []
    for _ in range(rng.randint(1, most)):
        follows = question_sampling.follow_up(rng, scene, asked[-1]) if asked and rng.random() < 0.5 else None
        asked.append(follows or question_sampling.ask(rng, scene))
    return asked


def _picture_turns(rng: random.Random, asked: Sequence[Asked]) -> list[Message]:
    if rng.random() < 0.06 and asked[0].skill == "describe":
        asked = [Asked("describe", "", asked[0].answer), *asked[1:]]  # an image without text
    return _turns(rng, asked, ImagePart())


def _turns(rng: random.Random, asked: Sequence[Asked], medium: Part) -> list[Message]:
    """Turns of questions and answers. The first has the medium, before or after the text."""
    messages: list[Message] = []
    for number, one in enumerate(asked):
        words = [TextPart(text=worded(rng, one.question))] if one.question else []
        parts = (medium, *words) if rng.random() < 0.5 else (*words, medium)
        messages.append(Message(role="user", content=words[0].text if number else parts))
        messages.append(Message(role="assistant", content=one.answer))
    return messages


def worded(rng: random.Random, question: str) -> str:
    """Vary a question as people type: sometimes in lower case or without punctuation at the end."""
    roll = rng.random()
    if roll < 0.12:
        return question.lower()
    if roll < 0.2:
        return question.rstrip("?.")
    return question.lower().rstrip("?.") if roll < 0.26 else question
