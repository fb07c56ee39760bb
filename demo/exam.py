"""The questions of the evaluation: held-out pictures, sounds and chats, as requests to an OpenAI server."""

import base64
import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import soundfile

from demo import chat, question_sampling, questions
from demo.conversation import Conversation
from demo.hearing import sound_of
from demo.pictures import Scene, draw, make_scene
from demo.sounds import RATE
from demo.sounds import ask as ask_sound
from gemma_wire import Message, Tool

SEED = 77_000_000
"""Seed of the evaluation. The training uses no series of this seed or a larger one."""


@dataclass(frozen=True)
class Question:
    """A request and the expected answer.

    Args:
        skill: group in the evaluation.
        body: of ``POST /v1/chat/completions``, without ``model``.
        answer: the text, or the calls as ``[[name, arguments], …]``.
    """

    skill: str
    body: dict[str, Any]
    answer: Any


def exam(number: int) -> Iterator[Question]:
    """All questions: ``number // 2`` for each chat skill, ``5 * number`` images, ``3 * number`` sounds."""
    yield from picture_questions(5 * number)
    yield from several_questions(2 * number)
    yield from sound_questions(3 * number)
    for skill, talk in chat.SKILLS.items():
        for i in range(number // 2):
            yield chat_question(skill, talk(random.Random(f"{SEED}-{skill}-{i}")))


def picture_questions(number: int) -> Iterator[Question]:
    """A description of every picture, and one more question about each."""
    for i in range(number):
        rng = random.Random(f"{SEED}-picture-{i}")
        scene = make_scene(rng, 1 + i % 4 if i % 10 else 0)
        part = _picture(rng, scene)
        names = ("no shape", "one shape", "two shapes", "three shapes", "four shapes")
        described = questions.describe(rng, scene)
        skill = f"picture: describe {names[len(scene.items)]}"
        yield _question(skill, [part], described.question, described.answer)
        counted = questions.count(rng, scene)
        yield _question("picture: count", [part], counted.question, counted.answer)
        asked = question_sampling.ask(rng, scene)
        if asked.skill not in ("describe", "count"):
            yield _question(f"picture: {asked.skill}", [part], asked.question, asked.answer)


def several_questions(number: int) -> Iterator[Question]:
    """Which of two pictures shows something, or what one of them shows."""
    for i in range(number):
        rng = random.Random(f"{SEED}-several-{i}")
        scenes = [make_scene(rng, rng.choice((1, 1, 2))) for _ in range(2)]
        parts = [_picture(rng, scene) for scene in scenes]
        asked = question_sampling.which_picture(rng, scenes)
        if asked is not None:
            yield _question("picture: one of two", parts, asked.question, asked.answer)


def _picture(rng: random.Random, scene: Scene) -> dict[str, Any]:
    file = io.BytesIO()
    draw(rng, scene).save(file, rng.choice(("PNG", "JPEG", "WEBP")))
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{_base64(file.getvalue())}"},
    }


def sound_questions(number: int) -> Iterator[Question]:
    """Two questions about each sound: what it is, and another one."""
    for i in range(number):
        rng = random.Random(f"{SEED}-sound-{i}")
        sound, samples = sound_of(SEED, i)
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format="WAV")
        part = {"type": "input_audio", "input_audio": {"data": _base64(file.getvalue()), "format": "wav"}}
        pairs = ask_sound(rng, sound)
        what = next((q, a) for q, a in pairs if a.startswith("I hear"))
        yield _question("sound: what it is", [part], *what)
        yield _question("sound: other questions", [part], *rng.choice(pairs))


def chat_question(skill: str, conversation: Conversation) -> Question:
    """The last turn of a conversation, after the expected turns before it."""
    *before, last = conversation.messages
    body: dict[str, Any] = {"messages": [_openai(message) for message in before]}
    if conversation.tools:
        body["tools"] = [_tool(tool) for tool in conversation.tools]
    calls = [[call.name, json.loads(call.arguments)] for call in last.tool_calls]
    return Question(f"chat: {skill}", body, calls or last.content)


def _question(skill: str, parts: list[dict[str, Any]], question: str, answer: str) -> Question:
    content = [{"type": "text", "text": question}, *parts]
    return Question(skill, {"messages": [{"role": "user", "content": content}]}, answer)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _openai(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        made["tool_call_id"] = message.tool_call_id
    return made


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters or {}}
    return {"type": "function", "function": function}
