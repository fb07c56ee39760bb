"""Messages → token ids.

``format_messages_to_prompt`` is the one place that knows how a conversation looks to the model; change it
to change the prompt. It returns pieces rather than one string, and the pieces are tokenised apart: control
tokens are honoured in ``Template`` pieces alone, so nobody can type one.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer

from gemma_model.protocol import Media, MediaSpan, Modality, Prompt
from gemma_wire import AudioPart, ContextLengthExceeded, InvalidRequest, Message, TextPart

TURN_START, TURN_END = "<start_of_turn>", "<end_of_turn>"
IMAGE_START, IMAGE_SOFT, IMAGE_END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"
ROLES = {"system": "user", "user": "user", "assistant": "model"}


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


def format_messages_to_prompt(messages: Sequence[Message]) -> list[Piece]:
    """A conversation as Gemma 3n was trained to read it, up to where the model speaks.

    Gemma has no system turn: a system message is the beginning of the user's. Neighbours of one side are one
    turn, with an empty line between them, so any order of roles is a valid conversation.
    """
    pieces: list[Piece] = [Template("<bos>")]
    for side, turn in groupby(messages, key=lambda message: ROLES[message.role]):
        pieces.append(Template(f"{TURN_START}{side}\n"))
        for position, message in enumerate(turn):
            pieces += [Template("\n\n")] if position else []
            pieces += _content(message)
        pieces.append(Template(f"{TURN_END}\n"))
    return [*pieces, Template(f"{TURN_START}model\n")]


def _content(message: Message) -> Iterator[Piece]:
    for part in message.parts:
        if isinstance(part, AudioPart):
            raise InvalidRequest("sound is not supported by this server yet", "messages")
        yield Text(part.text.strip()) if isinstance(part, TextPart) else Place("image")


def format_raw_prompt(prompt: str) -> list[Piece]:
    """A raw prompt: control tokens are honoured, and ``<image_soft_token>`` is the place of a picture."""
    pieces: list[Piece] = [] if prompt.startswith("<bos>") else [Template("<bos>")]
    for i, between in enumerate(prompt.split(IMAGE_SOFT)):
        pieces += [Place("image")] if i else []
        pieces.append(Template(between))
    return pieces


class PromptEncoder:
    """Pieces → ``Prompt``, with a checkpoint's tokenizer.

    Args:
        folder: holds ``tokenizer.json``.
        image_tokens: soft tokens per picture.
        context_length: tokens; text that cannot fit is refused before it is tokenised.

    Raises:
        InvalidRequest: when the tokenizer lacks Gemma's control tokens or cannot keep them out of user text.
    """

    def __init__(self, folder: Path, image_tokens: int, context_length: int) -> None:
        serialized = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self.tokenizer = Tokenizer.from_str(serialized)
        self._text_tokenizer = Tokenizer.from_str(_all_controls_special(serialized))
        self._text_tokenizer.encode_special_tokens = True  # "special" tokens in the text are spelled out
        self._image_tokens = image_tokens
        self._context_length = context_length
        self._longest_token = max(
            len(token.replace("▁", " ").encode()) for token in self.tokenizer.get_vocab()
        )
        self._image_id = self._check_controls()[IMAGE_SOFT]

    def encode(self, pieces: Iterable[Piece], media: Sequence[Media] = ()) -> Prompt:
        """Token ids, with the media expanded in the order of their places.

        Args:
            pieces: of the prompt.
            media: one for each ``Place``, in their order.

        Raises:
            InvalidRequest: when places and media do not match in number.
            ContextLengthExceeded: when the text is too long even if each token were the longest there is.
        """
        pieces = list(pieces)
        self._check_length(pieces)
        places = sum(isinstance(piece, Place) for piece in pieces)
        if places != len(media):
            raise InvalidRequest(f"{len(media)} given, but the text has places for {places}", "images")
        token_ids: list[int] = []
        spans: list[MediaSpan] = []
        for piece in _join(_frame(pieces)):
            if isinstance(piece, Place):
                spans.append(MediaSpan(len(token_ids), self._image_tokens, media[len(spans)]))
                token_ids += [self._image_id] * self._image_tokens
            else:
                token_ids += self._tokenise(piece)
        return Prompt(tuple(token_ids), tuple(spans))

    def _tokenise(self, piece: Template | Text) -> list[int]:
        tokenizer = self.tokenizer if isinstance(piece, Template) else self._text_tokenizer
        (encoding,) = tokenizer.encode_batch([piece.text], add_special_tokens=False)  # lets other threads run
        return list(encoding.ids)

    def _check_length(self, pieces: Iterable[Piece]) -> None:
        """Tokenising megabytes takes seconds; a text that cannot fit is not worth them."""
        size = sum(len(piece.text.encode()) for piece in pieces if not isinstance(piece, Place))
        at_least = -(-size // self._longest_token)
        if at_least >= self._context_length:
            raise ContextLengthExceeded(
                f"the prompt has at least {at_least} tokens; with one to answer they do not fit "
                f"the context of {self._context_length} tokens"
            )

    def _check_controls(self) -> dict[str, int]:
        """The ids of the control tokens, none of which user text can produce."""
        ids: dict[str, int] = {}
        for control in ("<bos>", TURN_START, TURN_END, IMAGE_START, IMAGE_SOFT, IMAGE_END):
            token_id = self.tokenizer.token_to_id(control)
            if token_id is None:
                raise InvalidRequest(f"its tokenizer.json has no {control}", "MODEL_NAME")
            if token_id in self._text_tokenizer.encode(control, add_special_tokens=False).ids:
                raise InvalidRequest(f"its tokenizer.json lets users type {control}", "MODEL_NAME")
            ids[control] = token_id
        return ids


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
    """Each picture with its beginning and end around it."""
    for piece in pieces:
        if isinstance(piece, Place):
            yield from (Template(f"\n\n{IMAGE_START}"), piece, Template(f"{IMAGE_END}\n\n"))
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
