"""What the demo model learns from: a conversation that ends with the assistant's answer."""

from dataclasses import dataclass

from gemma_wire import Message, Tool


@dataclass(frozen=True)
class Conversation:
    """One example.

    Args:
        skill: what it shows, such as ``"sums"``; the evaluation groups by it.
        messages: the last is the assistant's; every one of the assistant's is to be learnt.
        tools: that the assistant may call.
    """

    skill: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
