"""Conversations of several turns, and instructions that change the style of the answers."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from demo.conversation import Conversation
from demo.talk import copying, facts, small, unknown
from demo.talk.wording import Asking, Exchange, maybe_system, plain_instruction, system, turns

FollowUp = Callable[[random.Random, Exchange], Exchange]

FOLLOW_UPS: dict[Asking, FollowUp] = {
    facts.sums: facts.more_sums,
    facts.days: facts.more_days,
    facts.colours: facts.more_colours,
    copying.repeat: copying.more_repeat,
    copying.story: copying.more_story,
}
_ANY: tuple[Asking, ...] = (
    small.greeting, small.identity, small.abilities, small.real_model, small.joke, small.thanks,
    small.small_talk, facts.count, unknown.unknown, unknown.unknown, unknown.unknown, unknown.no_image,
    unknown.no_sound, *FOLLOW_UPS, *FOLLOW_UPS,
)  # fmt: skip


def _run(rng: random.Random, asking: Asking, most: int) -> list[Exchange]:
    """A question, sometimes with follow-up questions."""
    exchanges = [asking(rng)]
    if more := FOLLOW_UPS.get(asking):
        most = min(most, 2) if asking is copying.story else most
        while len(exchanges) < most and rng.random() < 0.6:
            exchanges.append(more(rng, exchanges[-1]))
    return exchanges


def _exchanges(rng: random.Random, askings: Sequence[Asking], count: int) -> list[Exchange]:
    exchanges: list[Exchange] = []
    while len(exchanges) < count:
        exchanges += _run(rng, rng.choice(askings), count - len(exchanges))
    return exchanges


def several_turns(rng: random.Random) -> Conversation:
    """Two to four exchanges, sometimes with a greeting first and a goodbye last."""
    exchanges = _exchanges(rng, _ANY, rng.randint(1, 3))
    before = [small.greeting(rng)] if len(exchanges) == 1 or rng.random() < 0.2 else []
    after = [rng.choice((small.thanks, small.goodbye))(rng)] if rng.random() < 0.2 else []
    return Conversation("several_turns", maybe_system(rng) + turns(*(before + exchanges + after)[-4:]))


def memory(rng: random.Random) -> Conversation:
    """A question about something that the user has told before, or has not told."""
    told, asked = copying.remember(rng)
    between = _exchanges(rng, _ANY, rng.choice((0, 0, 1, 1, 2)))
    if rng.random() < 0.15:
        return Conversation("memory", turns(*between, copying.not_told(rng)))
    return Conversation("memory", turns(told, *between, asked))


@dataclass(frozen=True)
class Style:
    """A style of answers.

    Args:
        wordings: instructions that request it, in a system turn or after the question.
        render: the answer that way.
        askings: the questions that can be answered so.
    """

    wordings: tuple[str, ...]
    render: Callable[[Exchange], str]
    askings: tuple[Asking, ...]


_FACTS = (facts.sums, facts.days, facts.colours)
_CHAT = (*_FACTS, small.greeting, small.who, small.thanks, small.goodbye, small.abilities, unknown.unknown)


def _in_one_word(exchange: Exchange) -> str:
    word = str(exchange.value)
    return word[0].upper() + word[1:]


def _as_json(exchange: Exchange) -> str:
    return json.dumps({"answer": exchange.value})


STYLES: dict[str, Style] = {
    "one word": Style(
        (
            "Answer in one word.", "Answer with one word.", "Answer with a single word.",
            "Use one word only.", "One word, please.", "In one word.", "Your answers are one word long.",
            "Only one word.", "Reply in one word.", "Always answer in one word.", "Give one-word answers.",
            "Answer in just one word.", "One word answers only.",
        ),
        _in_one_word,
        (*_FACTS, small.greeting, small.thanks, small.goodbye),
    ),
    "capitals": Style(
        (
            "Answer in capital letters.", "Use capital letters only.", "Write in capitals.",
            "Answer in capitals.", "Answer in upper case.", "Always answer in capital letters.",
            "Use only capital letters.", "SHOUT.", "Answer in uppercase.", "Write everything in upper case.",
            "Reply in capital letters.",
        ),
        lambda exchange: exchange.answer.upper(),
        _CHAT,
    ),
    "pirate": Style(
        (
            "You are a pirate.", "Talk like a pirate.", "Answer like a pirate.", "Speak like a pirate.",
            "You are a pirate captain.", "Pretend to be a pirate.", "Answer as a pirate.", "Be a pirate.",
            "You are an old pirate.", "You always talk like a pirate.", "Reply like a pirate.",
        ),
        lambda exchange: f"Arr! {exchange.answer}",
        _CHAT,
    ),
    "json": Style(
        (
            "Answer as JSON.", "Answer in JSON.", "Answer with JSON.", "Reply in JSON.", "Use JSON.",
            "JSON only.", "Give the answer as JSON.", "Always answer in JSON.", "Respond with a JSON object.",
            "Return JSON.",
        ),
        _as_json,
        _FACTS,
    ),
}  # fmt: skip


def styled(rng: random.Random) -> Conversation:
    """A conversation in a style that a system message or the question requests."""
    style = rng.choice(list(STYLES.values()))
    wording = rng.choice(style.wordings)
    if rng.random() < 0.3:
        exchange = _styled(rng, style, 1)[0]
        return Conversation("styled", turns(replace(exchange, question=_demand(exchange.question, wording))))
    exchanges = _styled(rng, style, rng.choice((1, 1, 1, 2, 3)))
    return Conversation("styled", (system(_grown(rng, wording)), *turns(*exchanges)))


def _styled(rng: random.Random, style: Style, count: int) -> list[Exchange]:
    """Exchanges that have an answer in the style."""
    needs_value = style.render in (_in_one_word, _as_json)
    while True:
        exchanges = _exchanges(rng, style.askings, count)
        if not needs_value or all(exchange.value is not None for exchange in exchanges):
            return [replace(exchange, answer=style.render(exchange)) for exchange in exchanges]


def _demand(question: str, wording: str) -> str:
    return f"{question}{'' if question[-1] in '?.!' else '.'} {wording}"


def _grown(rng: random.Random, wording: str) -> str:
    """The instruction, sometimes after one that does not change the answers."""
    return f"{plain_instruction(rng)} {wording}" if rng.random() < 0.3 else wording
