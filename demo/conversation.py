"""The training examples: conversations that end with an answer of the assistant."""

from dataclasses import dataclass

from gemma_wire import Message, Tool


@dataclass(frozen=True)
class Conversation:
    """One example.

    Args:
        skill: group in the evaluation, such as ``"sums"``.
        messages: all messages of the assistant are training targets; the last message is one of them.
        tools: that the assistant may call.
    """

    skill: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
