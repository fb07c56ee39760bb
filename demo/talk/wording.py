"""Exchanges of question and answer, and random variations of the wording of a question."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demo.conversation import Conversation
from gemma_wire import Message


@dataclass(frozen=True)
class Exchange:
    """A question and its answer.

    Args:
        question: the text of the user.
        answer: the text of the assistant.
        value: the answer as a number or a word, for ``In one word.`` and JSON; ``None`` if there is none.
    """

    question: str
    answer: str
    value: int | str | None = None


Talk = Callable[[random.Random], Conversation]
Asking = Callable[[random.Random], Exchange]

_LEADS = (
    "Hey, ", "Hi, ", "Hello, ", "Please, ", "OK, ", "So, ", "Well, ", "Now, ", "Hello! ", "Hi! ", "Hey! ",
    "Hmm, ", "Quick question: ", "One question: ", "Tell me: ", "My question: ", "Excuse me, ",
    "Good morning! ", "And ", "I have a question. ", "Dear model, ", "Great. ", "Oh, ", "Hi there! ",
    "Another question: ",
)  # fmt: skip
_TAILS = (" please", ", please", ", thanks")
_SHORTER = (
    ("What is ", "What's "),
    ("Who is ", "Who's "),
    ("Where is ", "Where's "),
    ("How is ", "How's "),
    ("what is ", "what's "),
    ("I am ", "I'm "),
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("cannot", "can't"),
)


def vary(rng: random.Random, text: str, *, lead: bool = True, exact_end: bool = False) -> str:
    """Vary the spelling, case, start and end of a question without changing its meaning.

    Args:
        rng: source of the random choices.
        text: the question with correct spelling.
        lead: whether words such as "Hey," may be added at the start.
        exact_end: the end must be unchanged: nothing is added to it, and only the case of the first letter
            is changed.
    """
    text = _spell(rng, text)
    if not exact_end:
        text = _end(rng, text)
    case = rng.random()
    if case < 0.12 and not exact_end:
        text = text.lower()
    elif case < 0.3:
        text = uncapitalise(text)
    if lead and rng.random() < 0.1:
        text = rng.choice(_LEADS) + uncapitalise(text)
    return text


def _spell(rng: random.Random, text: str) -> str:
    if rng.random() < 0.3:
        text = text.replace("colour", "color")
    if rng.random() < 0.3:
        for long, short in _SHORTER:
            text = text.replace(long, short)
    return text


def _end(rng: random.Random, text: str) -> str:
    """Vary the end: without the full stop or question mark, or with a "please" before it."""
    draw = rng.random()
    bare = text.rstrip("?.!")
    if not bare:
        return text
    if draw < 0.2:
        return bare
    if draw < 0.26:
        return bare + rng.choice(_TAILS) + text[len(bare) :]
    return text


def uncapitalise(text: str) -> str:
    """The text with a lower-case first letter, except for "I" and abbreviations."""
    return text if text[1:2] in ("", " ", "'") or text[1:2].isupper() else text[0].lower() + text[1:]


def a(noun: str) -> str:
    """The noun with its article: ``a cat``, ``an owl``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def enumerate_words(words: Sequence[str]) -> str:
    """``red``; ``red and blue``; ``red, blue and green``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def user(text: str) -> Message:
    """A message of the user."""
    return Message(role="user", content=text)


def assistant(text: str) -> Message:
    """A message of the assistant."""
    return Message(role="assistant", content=text)


def system(text: str) -> Message:
    """A system message."""
    return Message(role="system", content=text)


def turns(*exchanges: Exchange) -> tuple[Message, ...]:
    """The messages of some exchanges."""
    return tuple(message for one in exchanges for message in (user(one.question), assistant(one.answer)))


def single(skill: str, asking: Asking) -> Talk:
    """A skill with one exchange per conversation, sometimes after a system message."""

    def make(rng: random.Random) -> Conversation:
        return Conversation(skill, maybe_system(rng) + turns(asking(rng)))

    return make


_ADJECTIVES = (
    "helpful", "friendly", "polite", "kind", "clever", "honest", "concise", "patient", "knowledgeable",
    "careful", "good", "helpful, friendly", "kind and helpful", "professional", "cheerful", "smart", "modest",
    "useful", "harmless",
)  # fmt: skip
_ROLES = (
    "assistant", "AI assistant", "chatbot", "helper", "AI", "bot", "model", "language model",
    "demo assistant", "companion", "virtual assistant", "AI model", "chat assistant",
    "assistant who answers questions", "assistant for everybody",
)  # fmt: skip
_REQUESTS = (
    "Be helpful.", "Be kind and polite.", "Be friendly.", "Be brief.", "Be concise.", "Answer truthfully.",
    "Answer the user's questions.", "Help the user.", "Help the user as well as you can.", "Be honest.",
    "Keep it short.", "Your task is to help the user.", "Your answers are short and clear.",
    "Answer in English.", "This is a demo.", "Answer briefly.", "Never lie.", "Do not make things up.",
    "If you do not know something, say so.", "Be accurate.", "Look closely at pictures.", "Listen carefully.",
    "Think before you answer.", "Use simple words.", "Be nice.", "Follow the user's instructions.",
    "Respond clearly.", "Give short answers.", "Be respectful.", "You help people.",
)  # fmt: skip


def maybe_system(rng: random.Random) -> tuple[Message, ...]:
    """A system message that does not change the answers, in one of eight conversations."""
    return (system(plain_instruction(rng)),) if rng.random() < 0.125 else ()


def plain_instruction(rng: random.Random) -> str:
    """One or two sentences of what every assistant is told."""
    role = f"You are {a(f'{rng.choice(_ADJECTIVES)} {rng.choice(_ROLES)}')}."
    request = rng.choice(_REQUESTS)
    return rng.choice((role, role, request, f"{role} {request}", "You are a helpful assistant."))
