"""Messages → token ids.

``format_messages_to_prompt`` is the one place that knows how a conversation looks to the model; change it
to change the prompt (and ``tools`` for how tools and calls are written). It returns pieces rather than one
string, and the pieces are tokenised apart: control tokens are honoured in ``Template`` pieces alone, so
nobody can type one.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer

from gemma_model.protocol import Media, MediaSpan, Modality, Prompt
from gemma_model.tools import RESULT_END, RESULT_START, describe_tools, render_calls
from gemma_wire import ContextLengthExceeded, InvalidRequest, Message, TextPart, Tool

TURN_START, TURN_END = "<start_of_turn>", "<end_of_turn>"
ROLES = {"system": "user", "user": "user", "tool": "user", "assistant": "model"}
SOFT: dict[Modality, str] = {"image": "<image_soft_token>", "audio": "<audio_soft_token>"}
FRAMES: dict[Modality, tuple[str, str]] = {
    "image": ("\n\n<start_of_image>", "<end_of_image>\n\n"),
    "audio": ("\n\n<start_of_audio>", "<end_of_audio>\n\n"),
}
FIELDS: dict[Modality, str] = {"image": "images", "audio": "audio"}


@dataclass(frozen=True)
class Template:
    """Text that we wrote: control tokens in it are control tokens."""

    text: str


@dataclass(frozen=True)
class Text:
    """Text that somebody else wrote: whatever it holds is text."""

    text: str


@dataclass(frozen=True)
class Place:
    """Where the next picture or sound stands."""

    modality: Modality


Piece = Template | Text | Place


def format_messages_to_prompt(
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    *,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> list[Piece]:
    """A conversation as Gemma 3n was trained to read it, up to where the model speaks.

    Gemma has no system turn: a system message is the beginning of the user's, and so are the tools and what
    they bring. Neighbours of one side are one turn, with an empty line between them, so any order of roles is
    a valid conversation. Who has a name is quoted by it: ``Ann: Hello``.

    Args:
        messages: the conversation.
        tools: those that may be called.
        add_generation_prompt: begin the model's turn at the end.
        continue_final_message: leave the last turn open instead, so that the model goes on with it.
    """
    if tools:
        messages = [Message(role="system", content=describe_tools(tools)), *messages]
    called = {call.id: call.name for message in messages for call in message.tool_calls}
    pieces: list[Piece] = [Template("<bos>")]
    for side, turn in groupby(messages, key=lambda message: ROLES[message.role]):
        pieces.append(Template(f"{TURN_START}{side}\n"))
        for position, message in enumerate(turn):
            pieces += [Template("\n\n")] if position else []
            pieces += _result(message, called) if message.role == "tool" else _said(message)
        pieces.append(Template(f"{TURN_END}\n"))
    if continue_final_message:
        return pieces[:-1]
    return [*pieces, Template(f"{TURN_START}model\n")] if add_generation_prompt else pieces


def _said(message: Message) -> Iterator[Piece]:
    content = list(_content(message))
    if message.name:
        yield Text(f"{message.name}: ")
    yield from content
    if message.tool_calls:
        beside = any(isinstance(piece, Place) or piece.text for piece in content)
        yield Text(("\n" if beside else "") + render_calls(message.tool_calls))


def _result(message: Message, called: Mapping[str, str]) -> Iterator[Piece]:
    """What a call brought, by the name of what was called."""
    known = called.get(message.tool_call_id or "")
    yield Text(f"{RESULT_START}{known or message.name or message.tool_call_id} ")
    yield from _content(message)
    yield Text(RESULT_END)


def _content(message: Message) -> Iterator[Text | Place]:
    """Neighbouring texts are one, joined as they are and trimmed at its ends, as Gemma's template does."""
    for is_text, parts in groupby(message.parts, key=lambda part: isinstance(part, TextPart)):
        if is_text:
            yield Text("".join(part.text for part in parts if isinstance(part, TextPart)).strip())
        else:
            yield from (Place(part.type) for part in parts if not isinstance(part, TextPart))


def format_raw_prompt(prompt: str) -> list[Piece]:
    """A raw prompt: control tokens are honoured, and soft tokens are the places of pictures and sounds."""
    pieces: list[Piece] = [] if prompt.startswith("<bos>") else [Template("<bos>")]
    modalities = {soft: modality for modality, soft in SOFT.items()}
    for piece in re.split(f"({'|'.join(modalities)})", prompt):
        pieces += [Place(modalities[piece]) if piece in modalities else Template(piece)]
    return pieces


def too_long(context_length: int, has: str) -> str:
    """What clients are told of a prompt that does not fit the context.

    LangChain and LiteLLM recognise an overflow by "maximum context length is" and "prompt is too long".
    """
    return (
        f"This model's maximum context length is {context_length} tokens, and the prompt is too long: "
        f"it has {has} tokens, and at least one more is needed for the answer"
    )


class PromptEncoder:
    """Pieces → ``Prompt``, with a checkpoint's tokenizer.

    Args:
        folder: holds ``tokenizer.json``.
        soft_tokens: what can be taken in beside text, and how many soft tokens stand for one of it.
        context_length: tokens; text that cannot fit is refused before it is tokenised.

    Raises:
        InvalidRequest: when the tokenizer lacks Gemma's control tokens or cannot keep them out of user text.
    """

    def __init__(self, folder: Path, soft_tokens: Mapping[Modality, int], context_length: int) -> None:
        serialized = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self.tokenizer = Tokenizer.from_str(serialized)
        self._text_tokenizer = Tokenizer.from_str(_all_controls_special(serialized))
        self._text_tokenizer.encode_special_tokens = True  # "special" tokens in the text are spelled out
        self._soft_tokens = soft_tokens
        self._context_length = context_length
        self._longest_token = max(
            len(token.replace("▁", " ").encode()) for token in self.tokenizer.get_vocab()
        )
        controls = self._check_controls()
        self.soft_ids: dict[Modality, int] = {kind: controls[SOFT[kind]] for kind in soft_tokens}

    def encode(self, pieces: Iterable[Piece], media: Sequence[Media] = ()) -> Prompt:
        """Token ids, with the media expanded in the order of their places.

        Args:
            pieces: of the prompt.
            media: one for each ``Place``; those of one modality in their order.

        Raises:
            InvalidRequest: when places and media do not match in number, or cannot be taken in.
            ContextLengthExceeded: when the text is too long even if each token were the longest there is.
        """
        pieces = list(pieces)
        self.check_length(pieces)
        token_ids: list[int] = []
        places: list[tuple[int, Modality]] = []
        for piece in _join(_frame(pieces)):
            if isinstance(piece, Place):
                places.append((len(token_ids), piece.modality))
                soft = self.soft_ids.get(piece.modality, 0)
                token_ids += [soft] * self._soft_tokens.get(piece.modality, 0)
            else:
                token_ids += self._tokenise(piece)
        return Prompt(tuple(token_ids), self._spans(places, media))

    def adopt(self, token_ids: Sequence[int], media: Sequence[Media] = ()) -> Prompt:
        """A prompt that is tokenised already, with as many soft tokens as each medium takes.

        Raises:
            InvalidRequest: when the soft tokens do not match the media.
        """
        modalities = {soft: modality for modality, soft in self.soft_ids.items()}
        places: list[tuple[int, Modality]] = []
        at = 0
        while at < len(token_ids):
            modality, length = modalities.get(token_ids[at]), 1
            if modality is not None:
                length = self._soft_tokens[modality]
                if list(token_ids[at : at + length]) != [token_ids[at]] * length:
                    wanted = f"one of the {FIELDS[modality]} takes {length} soft tokens in a row"
                    raise InvalidRequest(
                        f"{wanted}, not fewer as from place {at}", "options.prompt_token_ids"
                    )
                places.append((at, modality))
            at += length
        return Prompt(tuple(token_ids), self._spans(places, media))

    def _spans(self, places: Sequence[tuple[int, Modality]], media: Sequence[Media]) -> tuple[MediaSpan, ...]:
        """Each place with the next medium of its modality."""
        for modality, field in FIELDS.items():
            wanted = sum(kind == modality for _, kind in places)
            given = sum(one.modality == modality for one in media)
            if (wanted or given) and modality not in self._soft_tokens:
                raise InvalidRequest("this model takes none", field)
            if wanted != given:
                raise InvalidRequest(f"{given} given, but the text has places for {wanted}", field)
        waiting = {kind: iter([one for one in media if one.modality == kind]) for kind in self._soft_tokens}
        return tuple(
            MediaSpan(at, self._soft_tokens[modality], next(waiting[modality])) for at, modality in places
        )

    def _tokenise(self, piece: Template | Text) -> list[int]:
        tokenizer = self.tokenizer if isinstance(piece, Template) else self._text_tokenizer
        (encoding,) = tokenizer.encode_batch([piece.text], add_special_tokens=False)  # lets other threads run
        return list(encoding.ids)

    def check_length(self, pieces: Iterable[Piece]) -> None:
        """Tokenising megabytes takes seconds; a text that cannot fit is not worth them."""
        size = sum(_utf8_size(piece.text) for piece in pieces if not isinstance(piece, Place))
        at_least = -(-size // self._longest_token)
        if at_least >= self._context_length:
            raise ContextLengthExceeded(too_long(self._context_length, f"at least {at_least}"))

    def _check_controls(self) -> dict[str, int]:
        """The ids of the control tokens, none of which user text can produce."""
        ids: dict[str, int] = {}
        media = (part for kind in self._soft_tokens for part in (SOFT[kind], *FRAMES[kind]))
        for control in ("<bos>", TURN_START, TURN_END, *map(str.strip, media)):
            token_id = self.tokenizer.token_to_id(control)
            if token_id is None:
                raise InvalidRequest(f"its tokenizer.json has no {control}", "MODEL_NAME")
            if token_id in self._text_tokenizer.encode(control, add_special_tokens=False).ids:
                raise InvalidRequest(f"its tokenizer.json lets users type {control}", "MODEL_NAME")
            ids[control] = token_id
        return ids


def _utf8_size(text: str) -> int:
    """Bytes; where there are no others than ASCII, which is known, without a copy."""
    return len(text) if text.isascii() else len(text.encode())


def _all_controls_special(serialized: str) -> str:
    """The tokenizer with every ``<…>`` of the turn and media kind marked special.

    Gemma's own file marks them already; HTML tags, which it holds as plain tokens, stay plain.
    """
    content = json.loads(serialized)
    for token in content["added_tokens"]:
        if re.fullmatch(r"<(start|end)_of_\w+>|<\w+_soft_token>|<(pad|bos|eos|unk|mask)>", token["content"]):
            token["special"] = True
    return json.dumps(content)


def _frame(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Each picture and sound with its beginning and end around it."""
    for piece in pieces:
        if isinstance(piece, Place):
            start, end = FRAMES[piece.modality]
            yield from (Template(start), piece, Template(end))
        else:
            yield piece


def _join(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind as one piece: tokens may span what was written in two steps."""
    held: Template | Text | None = None
    for piece in pieces:
        if held is not None and type(held) is type(piece):
            held = type(held)(held.text + piece.text)
            continue
        if held is not None:
            yield held
        held = None if isinstance(piece, Place) else piece
        if isinstance(piece, Place):
            yield piece
    if held is not None:
        yield held
