"""Conversations with calls of tools, and conversations with tools that are not called."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from demo.conversation import Conversation
from demo.talk import small
from demo.talk.copying import repeat, story
from demo.talk.facts import colours, days
from demo.talk.unknown import UNKNOWN, no_image, unknown_elsewhere
from demo.talk.wording import Exchange, assistant, maybe_system, turns, user, vary
from demo.talk.words import CITIES
from gemma_wire import Message, Tool, ToolCall

NO_RESULT = "Sorry, the tool gave no result."

_FAILURES = (
    "Error",
    "error: not found",
    "Error: timeout",
    '{"error": "not found"}',
    "Not available",
    "unknown city",
)
_SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "stormy", "clear")


@dataclass(frozen=True)
class Use:
    """A request that a tool answers.

    Args:
        subject: how a question names it: ``Paris``, ``23 + 45``.
        results: ways in which the tool may say it.
        answer: what the assistant makes of that, without the full stop and its "It is".
    """

    tool: str
    arguments: dict[str, Any]
    subject: str
    results: tuple[str, ...]
    answer: str


def _weather(rng: random.Random) -> Use:
    city, degrees, sky = rng.choice(CITIES), rng.randint(-9, 38), rng.choice(_SKIES)
    results = (
        f"{degrees} °C and {sky}",
        f"{degrees} °C, {sky}",
        f"{degrees}°C {sky}",
        f"{sky}, {degrees} °C",
        f"{degrees} degrees and {sky}",
        json.dumps({"temperature": degrees, "weather": sky}),
        json.dumps({"city": city, "temperature": degrees, "conditions": sky}),
        json.dumps({"weather": sky, "temperature": degrees}),
    )
    return Use("get_weather", {"city": city}, city, results, f"{degrees} °C and {sky} in {city}")


def _time(rng: random.Random) -> Use:
    city, clock = rng.choice(CITIES), f"{rng.randrange(24):02}:{rng.randrange(60):02}"
    results = (
        clock,
        clock,
        f"{clock} local time",
        json.dumps({"time": clock}),
        json.dumps({"city": city, "time": clock}),
    )
    return Use("get_time", {"city": city}, city, results, f"{clock} in {city}")


def _add(rng: random.Random) -> Use:
    most = rng.choice((10, 99, 999))
    one, other = rng.randint(0, most), rng.randint(0, most)
    total = one + other
    results = (str(total), str(total), json.dumps({"sum": total}), json.dumps({"result": total}))
    return Use("add", {"a": one, "b": other}, f"{one} + {other}", results, f"{one} + {other} = {total}")


USES: dict[str, Callable[[random.Random], Use]] = {"get_weather": _weather, "get_time": _time, "add": _add}
_QUESTIONS = {
    "get_weather": (
        "What is the weather in {}?", "How is the weather in {}?", "What is the weather like in {}?",
        "Weather in {}?", "Tell me the weather in {}.", "What is the weather in {} today?",
        "The weather in {}?", "How warm is it in {}?", "What is the temperature in {}?",
        "Can you check the weather in {}?", "Is it sunny in {}?", "Is it raining in {}?",
        "Get the weather of {}.", "I am in {}. How is the weather?", "Please look up the weather for {}.",
    ),
    "get_time": (
        "What time is it in {}?", "What is the time in {}?", "Tell me the time in {}.",
        "How late is it in {}?", "Which time is it in {}?", "Time in {}?",
        "Can you tell me what time it is in {}?", "What time is it now in {}?", "The time in {}?",
        "Get the local time of {}.",
    ),
    "add": (
        "What is {}?", "How much is {}?", "Add {}.", "Calculate {}.", "{}", "{} = ?", "Compute {}.",
        "Work out {}.", "Can you add {}?", "What is the sum of {}?", "Tell me {}.", "Use the tool to add {}.",
    ),
}  # fmt: skip
_MORE = {
    "get_weather": ("And in {}?", "What about {}?", "And {}?", "and in {}", "How about {}?"),
    "get_time": ("And in {}?", "What about {}?", "And {}?", "and in {}", "How about {}?"),
    "add": ("And {}?", "Now {}.", "And what is {}?", "What about {}?"),
}
_DESCRIPTIONS = {
    "get_weather": (
        "Get the weather in a city", "The current weather of a city.", "Weather by city", "",
        "Get the current weather", "Returns the weather for a city.", "Look up the weather.",
        "Tells the temperature and the sky in a city.",
    ),
    "get_time": (
        "Get the time in a city", "The local time of a city.", "Time by city", "", "Get the current time",
        "Returns the time in a city.", "Look up the local time.", "What time it is somewhere.",
    ),
    "add": (
        "Add two numbers", "The sum of two numbers.", "Adds a and b", "", "Add two integers.",
        "Returns a + b.", "Calculate a sum.", "Sum of a and b",
    ),
}  # fmt: skip
_ABOUT_CITY = ("", "", "The city", "Name of the city", "City name, such as Paris", "Which city")


def make_tool(rng: random.Random, name: str) -> Tool:
    """A tool with a random description."""
    kind = rng.choice(("number", "integer"))
    properties: dict[str, dict[str, str]] = (
        {"a": {"type": kind}, "b": {"type": kind}} if name == "add" else {"city": _city(rng)}
    )
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)}
    if rng.random() < 0.2:
        schema["additionalProperties"] = False
    keys = rng.sample(list(schema), len(schema)) if rng.random() < 0.3 else list(schema)
    parameters = {key: schema[key] for key in keys}
    return Tool(name=name, description=rng.choice(_DESCRIPTIONS[name]), parameters=parameters)


def _city(rng: random.Random) -> dict[str, str]:
    about = rng.choice(_ABOUT_CITY)
    return {"type": "string", **({"description": about} if about else {})}


def _tools(rng: random.Random, names: Sequence[str]) -> tuple[Tool, ...]:
    return tuple(make_tool(rng, name) for name in rng.sample(names, len(names)))


def _others(rng: random.Random, name: str) -> list[str]:
    """Other tools of the same request."""
    return rng.sample([other for other in USES if other != name], rng.choice((0, 0, 1, 1, 2)))


def with_tools(rng: random.Random) -> Conversation:
    """A question with a tool call, its result and the answer; sometimes a second question."""
    name = rng.choice(list(USES))
    tools = _tools(rng, [name, *_others(rng, name)])
    messages = _asked(rng, name, _QUESTIONS[name], 0)
    if rng.random() < 0.25:
        messages += _asked(rng, name, _MORE[name], 2)
    elif rng.random() < 0.15:
        messages += turns(small.thanks(rng))
    return Conversation("tools", maybe_system(rng) + messages, tools)


def _asked(rng: random.Random, name: str, wordings: Sequence[str], calls_before: int) -> tuple[Message, ...]:
    """A question, or a question about two cities at once."""
    uses = [USES[name](rng)]
    if name != "add" and rng.random() < 0.15:
        uses.append(USES[name](rng))
    if len(uses) == 2 and uses[0].subject == uses[1].subject:
        uses.pop()
    subject = " and ".join(use.subject for use in uses)
    if name == "add" and rng.random() < 0.3:
        subject = subject.replace("+", rng.choice(("plus", "and")))
    question = vary(
        rng, rng.choice(wordings).format(subject), exact_end=True, lead=wordings is _QUESTIONS[name]
    )
    return user(question), *_called(rng, uses, calls_before)


def _called(rng: random.Random, uses: Sequence[Use], calls_before: int) -> tuple[Message, ...]:
    """The messages with the calls, their results and the answer."""
    calls = tuple(
        ToolCall(id=f"call_{number}", name=use.tool, arguments=json.dumps(use.arguments, ensure_ascii=False))
        for number, use in enumerate(uses, start=calls_before)
    )
    failed = rng.random() < 0.05
    results = tuple(
        Message(role="tool", content=rng.choice(_FAILURES if failed else use.results), tool_call_id=call.id)
        for call, use in zip(calls, uses, strict=True)
    )
    return (
        Message(role="assistant", tool_calls=calls),
        *results,
        assistant(NO_RESULT if failed else _answer(uses)),
    )


def _answer(uses: Sequence[Use]) -> str:
    told = " and ".join(use.answer for use in uses)
    return f"{told}." if uses[0].tool == "add" else f"It is {told}."


_CHAT = (
    small.greeting, small.identity, small.thanks, small.abilities, small.real_model, small.goodbye,
    small.joke, colours, days, repeat, story, unknown_elsewhere, unknown_elsewhere, no_image,
)  # fmt: skip


def chat_with_tools(rng: random.Random) -> Conversation:
    """A conversation in which no tool is called."""
    if rng.random() < 0.3:
        return _lacking(rng)
    names = rng.sample(list(USES), rng.choice((1, 1, 2, 3)))
    return Conversation(
        "chat_with_tools", maybe_system(rng) + turns(rng.choice(_CHAT)(rng)), _tools(rng, names)
    )


def _lacking(rng: random.Random) -> Conversation:
    """A question that none of the tools can answer."""
    name = rng.choice(("get_weather", "get_time"))
    names = rng.sample([other for other in USES if other != name], rng.choice((1, 2)))
    subject = rng.choice(CITIES)
    question = vary(rng, rng.choice(_QUESTIONS[name]).format(subject), exact_end=True)
    return Conversation("chat_with_tools", turns(Exchange(question, UNKNOWN)), _tools(rng, names))
