"""Messages → prompt parts.

``format_messages_to_prompt`` defines how a conversation is presented to the model; change it to change the
prompt (and ``tool_calls`` for how tools and calls are written). It returns parts instead of one string, and
the parts are tokenised separately (``prompt_encoder``): control tokens are recognised in ``TemplateText``
only, so no user can type one.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat

from gemma_model.engine_types import Modality
from gemma_model.tool_calls import RESULT_END, RESULT_START, describe_tools, render_calls
from gemma_wire import Message, TextPart, Tool

TURN_START, TURN_END = "<start_of_turn>", "<end_of_turn>"
ROLES = {"system": "user", "user": "user", "tool": "user", "assistant": "model"}
SOFT_TOKENS: dict[Modality, str] = {"image": "<image_soft_token>", "audio": "<audio_soft_token>"}


@dataclass(frozen=True)
class TemplateText:
    """Text of the template: control tokens in it are recognised."""

    text: str


@dataclass(frozen=True)
class UserText:
    """Text from a client: it is always plain text."""

    text: str


@dataclass(frozen=True)
class MediaPlaceholder:
    """The position of the next image or audio clip."""

    modality: Modality


PromptPart = TemplateText | UserText | MediaPlaceholder


def format_messages_to_prompt(
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> list[PromptPart]:
    """A conversation in the form that Gemma 3n was trained on, up to where the model's turn begins.

    Gemma has no system turn: a system message becomes the beginning of the user's turn, and so do tool
    definitions and tool results. Consecutive messages of one side form one turn, with an empty line between
    them, so any order of roles is a valid conversation. A message with a name starts with it: ``Ann: Hello``.

    Args:
        messages: the conversation.
        tools: those that may be called.
        add_generation_prompt: begin the model's turn at the end.
        continue_final_message: leave the last turn open instead, so that the model continues it.
    """
    if tools:
        messages = [Message(role="system", content=describe_tools(tools)), *messages]
    called = {call.id: call.name for message in messages for call in message.tool_calls}
    parts: list[PromptPart] = [TemplateText("<bos>")]
    for side, turn in groupby(messages, key=lambda message: ROLES[message.role]):
        parts.append(TemplateText(f"{TURN_START}{side}\n"))
        for position, message in enumerate(turn):
            parts += [TemplateText("\n\n")] if position else []
            parts += _tool_result(message, called) if message.role == "tool" else _message(message)
        parts.append(TemplateText(f"{TURN_END}\n"))
    if continue_final_message:
        return parts[:-1]
    return [*parts, TemplateText(f"{TURN_START}model\n")] if add_generation_prompt else parts


def _message(message: Message) -> Iterator[PromptPart]:
    content = list(_content(message))
    if message.name:
        yield UserText(f"{message.name}: ")
    yield from content
    if message.tool_calls:
        has_content = any(isinstance(part, MediaPlaceholder) or part.text for part in content)
        yield UserText(("\n" if has_content else "") + render_calls(message.tool_calls))


def _tool_result(message: Message, called: Mapping[str, str]) -> Iterator[PromptPart]:
    """The result of a call, with the name of the called function."""
    known = called.get(message.tool_call_id or "")
    yield UserText(f"{RESULT_START}{known or message.name or message.tool_call_id} ")
    yield from _content(message)
    yield UserText(RESULT_END)


def _content(message: Message) -> Iterator[UserText | MediaPlaceholder]:
    """Consecutive texts are joined without a separator and trimmed at both ends, as Gemma's template does."""
    for is_text, parts in groupby(message.parts, key=lambda part: isinstance(part, TextPart)):
        if is_text:
            yield UserText("".join(part.text for part in parts if isinstance(part, TextPart)).strip())
        else:
            yield from (MediaPlaceholder(part.type) for part in parts if not isinstance(part, TextPart))


def format_raw_prompt(prompt: str) -> list[PromptPart]:
    """A raw prompt: control tokens are recognised, and soft tokens mark the positions of images and audio."""
    parts: list[PromptPart] = [] if prompt.startswith("<bos>") else [TemplateText("<bos>")]
    modalities = {soft: modality for modality, soft in SOFT_TOKENS.items()}
    for text in re.split(f"({'|'.join(modalities)})", prompt):
        parts += [MediaPlaceholder(modalities[text]) if text in modalities else TemplateText(text)]
    return parts


def repeat_audio(parts: Iterable[PromptPart], clips: Sequence[Sequence[object]]) -> Iterator[PromptPart]:
    """The parts, with one placeholder for each clip of an audio file.

    Args:
        parts: with one placeholder for each file.
        clips: of each file. Placeholders without a file are kept.
    """
    counts = iter([len(each) for each in clips])
    for part in parts:
        is_audio = isinstance(part, MediaPlaceholder) and part.modality == "audio"
        yield from repeat(part, next(counts, 1) if is_audio else 1)
