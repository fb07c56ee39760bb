"""Identifies the conversation of a request, so that its next turn can be sent to the same server."""

import hashlib
from typing import Final

from gemma_wire import AudioPart, ImagePart, Message, Request

_LONGEST: Final = 2**16
"""Characters or bytes of a text or file that are hashed; the length stands for the rest."""
_PROMPT: Final = 1024
"""Characters or tokens of a prompt without messages that identify it."""


def routing_key(request: Request) -> bytes:
    """Equal for all turns of a conversation.

    It covers what the prefix cache distinguishes (the model and the salt, which separates API keys) and the
    messages up to the first one of the user, with their images and audio. So conversations with the same
    system prompt have different keys, and are spread over the servers.

    Returns:
        16 bytes.
    """
    options = request.options
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, options.model or "")
    _add(digest, options.cache_salt or "")
    for message in _opening(request.messages or ()):
        _add(digest, message.role)
        _add_content(digest, message)
    for data in (*request.images[: _files(request, ImagePart)], *request.audio[: _files(request, AudioPart)]):
        _add(digest, data)
    _add(digest, (request.prompt or "")[:_PROMPT])
    _add(digest, repr(options.prompt_token_ids[:_PROMPT]) if options.prompt_token_ids else "")
    return digest.digest()


def estimated_tokens(request: Request) -> int:
    """About how many tokens a request makes a server process, if nothing of it is in the prefix cache.

    A token has about four characters, an image or an audio clip at most 256 tokens (Gemma 3n). At most 1,024
    tokens of the response count, because many clients ask for more than they need.
    """
    prompt = request.text_size // 4 + len(request.options.prompt_token_ids or ())
    media = 256 * (len(request.images) + len(request.audio))
    return prompt + media + request.options.n * min(request.max_tokens or 256, 1024)


def _opening(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages up to the first one of the user."""
    turns = (index for index, message in enumerate(messages, 1) if message.role == "user")
    return messages[: next(turns, len(messages))]


def _files(request: Request, kind: type[ImagePart] | type[AudioPart]) -> int:
    """How many files of a kind the opening has."""
    opening = _opening(request.messages or ())
    contents = (message.content for message in opening if not isinstance(message.content, str))
    return sum(isinstance(part, kind) for content in contents for part in content)


def _add_content(digest: "hashlib.blake2b", message: Message) -> None:
    if isinstance(message.content, str):
        _add(digest, message.content)
        return
    for part in message.content:
        _add(digest, type(part).__name__)
        _add(digest, getattr(part, "text", ""))


def _add(digest: "hashlib.blake2b", value: str | bytes) -> None:
    """The beginning and the length of a value."""
    begin = value[:_LONGEST]
    digest.update(len(value).to_bytes(8, "little"))
    digest.update(begin.encode("utf-8", "surrogatepass") if isinstance(begin, str) else begin)
