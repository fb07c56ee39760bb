"""TokenizedPrompt parts → token ids, with a checkpoint's tokenizer."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from gemma_model.chat_template import (
    SOFT_TOKENS,
    TURN_END,
    TURN_START,
    MediaPlaceholder,
    PromptPart,
    TemplateText,
    UserText,
)
from gemma_model.engine_types import Media, MediaSpan, Modality, TokenizedPrompt
from gemma_wire import ContextLengthExceeded, InvalidRequest

MEDIA_FRAMES: dict[Modality, tuple[str, str]] = {
    "image": ("\n\n<start_of_image>", "<end_of_image>\n\n"),
    "audio": ("\n\n<start_of_audio>", "<end_of_audio>\n\n"),
}
MEDIA_FIELDS: dict[Modality, str] = {"image": "images", "audio": "audio"}


def context_length_message(context_length: int, has: str) -> str:
    """The error message for a prompt that does not fit the context.

    LangChain and LiteLLM recognise an overflow by "maximum context length is" and "prompt is too long".
    """
    return (
        f"This model's maximum context length is {context_length} tokens, and the prompt is too long: "
        f"it has {has} tokens, and at least one more is needed for the response"
    )


class PromptEncoder:
    """Tokenises prompts.

    Args:
        folder: holds ``tokenizer.json``.
        soft_tokens: the supported media, and the number of soft tokens of each image or audio clip.
        context_length: in tokens; text that cannot fit is refused before it is tokenised.

    Raises:
        InvalidRequest: the tokenizer lacks Gemma's control tokens, or users could type them.
    """

    def __init__(self, folder: Path, soft_tokens: Mapping[Modality, int], context_length: int) -> None:
        serialized = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self.tokenizer = Tokenizer.from_str(serialized)
        self._text_tokenizer = Tokenizer.from_str(_mark_controls_special(serialized))
        self._text_tokenizer.encode_special_tokens = True  # "special" tokens in the text are spelled out
        self._soft_tokens = soft_tokens
        self._context_length = context_length
        self._longest_token = max(
            len(token.replace("▁", " ").encode()) for token in self.tokenizer.get_vocab()
        )
        controls = self._check_controls()
        self.soft_ids: dict[Modality, int] = {kind: controls[SOFT_TOKENS[kind]] for kind in soft_tokens}

    def encode(self, parts: Iterable[PromptPart], media: Sequence[Media] = ()) -> TokenizedPrompt:
        """Token ids, with each placeholder expanded to soft tokens.

        Args:
            parts: of the prompt.
            media: one for each placeholder; those of one modality in their order.

        Raises:
            InvalidRequest: the numbers of placeholders and media differ, or the model does not support them.
            ContextLengthExceeded: the text is too long even if each token were the longest of the vocabulary.
        """
        parts = list(parts)
        self.check_length(parts)
        token_ids: list[int] = []
        places: list[tuple[int, Modality]] = []
        for part in _join(_frame_media(parts)):
            if isinstance(part, MediaPlaceholder):
                places.append((len(token_ids), part.modality))
                soft = self.soft_ids.get(part.modality, 0)
                token_ids += [soft] * self._soft_tokens.get(part.modality, 0)
            else:
                token_ids += self._tokenise(part)
        return TokenizedPrompt(tuple(token_ids), self._spans(places, media))

    def from_token_ids(self, token_ids: Sequence[int], media: Sequence[Media] = ()) -> TokenizedPrompt:
        """A prompt that is tokenised already, with the right number of soft tokens for each medium.

        Raises:
            InvalidRequest: the soft tokens do not match the media.
        """
        modalities = {soft: modality for modality, soft in self.soft_ids.items()}
        places: list[tuple[int, Modality]] = []
        at = 0
        while at < len(token_ids):
            modality, length = modalities.get(token_ids[at]), 1
            if modality is not None:
                length = self._soft_tokens[modality]
                if list(token_ids[at : at + length]) != [token_ids[at]] * length:
                    raise InvalidRequest(
                        f"has fewer than {length} consecutive soft tokens from index {at} on; each of the "
                        f"{MEDIA_FIELDS[modality]} needs {length}",
                        "options.prompt_token_ids",
                    )
                places.append((at, modality))
            at += length
        return TokenizedPrompt(tuple(token_ids), self._spans(places, media))

    def _spans(self, places: Sequence[tuple[int, Modality]], media: Sequence[Media]) -> tuple[MediaSpan, ...]:
        """Each place with the next medium of its modality."""
        for modality, field in MEDIA_FIELDS.items():
            wanted = sum(kind == modality for _, kind in places)
            given = sum(one.modality == modality for one in media)
            if (wanted or given) and modality not in self._soft_tokens:
                raise InvalidRequest(f"this model does not support {field}", field)
            if wanted != given:
                raise InvalidRequest(f"has {given} files, but the text has placeholders for {wanted}", field)
        waiting = {kind: iter([one for one in media if one.modality == kind]) for kind in self._soft_tokens}
        return tuple(
            MediaSpan(at, self._soft_tokens[modality], next(waiting[modality])) for at, modality in places
        )

    def encode_prediction(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that the output may be similar to, at most as many as the context."""
        at_most = self._context_length * self._longest_token
        return tuple(self._tokenise(UserText(text[:at_most]))[: self._context_length])

    def _tokenise(self, part: TemplateText | UserText) -> list[int]:
        tokenizer = self.tokenizer if isinstance(part, TemplateText) else self._text_tokenizer
        (encoding,) = tokenizer.encode_batch([part.text], add_special_tokens=False)  # releases the GIL
        return list(encoding.ids)

    def check_length(self, parts: Iterable[PromptPart]) -> None:
        """Refuse a text that cannot fit before it is tokenised: to tokenise megabytes takes seconds."""
        size = sum(_utf8_size(part.text) for part in parts if not isinstance(part, MediaPlaceholder))
        at_least = -(-size // self._longest_token)
        if at_least >= self._context_length:
            raise ContextLengthExceeded(context_length_message(self._context_length, f"at least {at_least}"))

    def _check_controls(self) -> dict[str, int]:
        """The ids of the control tokens, none of which user text can produce."""
        ids: dict[str, int] = {}
        media = (text for kind in self._soft_tokens for text in (SOFT_TOKENS[kind], *MEDIA_FRAMES[kind]))
        for control in ("<bos>", TURN_START, TURN_END, *map(str.strip, media)):
            token_id = self.tokenizer.token_to_id(control)
            if token_id is None:
                raise InvalidRequest(f"its tokenizer.json has no {control}", "MODEL_NAME")
            if token_id in self._text_tokenizer.encode(control, add_special_tokens=False).ids:
                raise InvalidRequest(
                    f"its tokenizer.json tokenizes {control} in user text as a control token", "MODEL_NAME"
                )
            ids[control] = token_id
        return ids


def _utf8_size(text: str) -> int:
    """Bytes; without a copy for ASCII."""
    return len(text) if text.isascii() else len(text.encode())


def _mark_controls_special(serialized: str) -> str:
    """The tokenizer with every turn, media and padding control token marked special.

    Gemma's own file marks them already; HTML tags, which it holds as plain tokens, stay plain.
    """
    content = json.loads(serialized)
    for token in content["added_tokens"]:
        if re.fullmatch(r"<(start|end)_of_\w+>|<\w+_soft_token>|<(pad|bos|eos|unk|mask)>", token["content"]):
            token["special"] = True
    return json.dumps(content)


def _frame_media(parts: Iterable[PromptPart]) -> Iterator[PromptPart]:
    """Each placeholder with its start and end tokens around it."""
    for part in parts:
        if isinstance(part, MediaPlaceholder):
            start, end = MEDIA_FRAMES[part.modality]
            yield from (TemplateText(start), part, TemplateText(end))
        else:
            yield part


def _join(parts: Iterable[PromptPart]) -> Iterator[PromptPart]:
    """Consecutive texts of one kind as one part: a token may span their border."""
    held: TemplateText | UserText | None = None
    for part in parts:
        if held is not None and type(held) is type(part):
            held = type(held)(held.text + part.text)
            continue
        if held is not None:
            yield held
        held = None if isinstance(part, MediaPlaceholder) else part
        if isinstance(part, MediaPlaceholder):
            yield part
    if held is not None:
        yield held
