"""A request, as typed values and as tensors."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, StrictFloat, TypeAdapter, ValidationError, model_validator

from gemma_wire import tensors
from gemma_wire.bounded import Bounds
from gemma_wire.errors import InvalidRequest
from gemma_wire.json_limits import JsonLimitExceeded, check_json
from gemma_wire.lenient_base64 import NotBase64, decode_base64
from gemma_wire.messages import MAX_MESSAGES, Message, WireModel, check_parts
from gemma_wire.options import INT32_MAX, JsonInt, Options
from gemma_wire.tensors import Array

MAX_FILES: Final = 256
"""Elements of ``images`` and of ``audio``; the model's own limits are far lower."""
MAX_TEXT_BYTES: Final = 64 * 2**20
"""Maximum size of each of ``prompt``, ``messages`` and ``options``."""
MAX_PROMPT_CHARACTERS: Final = 2**24
"""Far above any context length; a longer text is refused without sending it to the model."""
MAX_PARAMETER_BYTES: Final = 2**20
"""Of all request parameters together, as JSON."""

# Operation → the fields of which it needs exactly one.
_PROMPT_FIELDS = {
    "generate": ("prompt", "messages", "prompt_token_ids"),
    "tokenize": ("prompt", "messages"),
    "detokenize": ("prompt_token_ids",),
    "describe": (),
    "tokenizer_info": (),
    "subscribe": (),
}


class Request(WireModel):
    """A request to the model.

    ``op=generate`` needs exactly one of ``prompt``, ``messages`` and ``options.prompt_token_ids``; for other
    operations see ``_PROMPT_FIELDS``.

    Args:
        prompt: raw text, in which control tokens have their meaning.
        messages: the conversation.
        images: encoded files (PNG, JPEG, …), in the order of their positions.
        audio: encoded files (WAV, …), in the order of their positions.
        max_tokens: the maximum number of new tokens; ``None``: what the context has room for.
        temperature: 0 is greedy; ``None``: the checkpoint's default.
        top_p: nucleus sampling; ``None``: the checkpoint's default.
        stream: respond with chunks as they are generated, or with one complete response.
    """

    prompt: str | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    images: tuple[bytes, ...] = ()
    audio: tuple[bytes, ...] = ()
    max_tokens: JsonInt | None = Field(None, ge=1, le=INT32_MAX)
    temperature: StrictFloat | None = Field(None, ge=0, le=2)
    top_p: StrictFloat | None = Field(None, gt=0, le=1)
    stream: bool = False
    options: Options = Options()

    @model_validator(mode="after")
    def _check_prompt_fields(self) -> Self:
        fields = {
            "prompt": self.prompt,
            "messages": self.messages,
            "prompt_token_ids": self.options.prompt_token_ids,
        }
        given = [name for name, value in fields.items() if value is not None]
        allowed = _PROMPT_FIELDS[self.options.op]
        if len(given) != min(1, len(allowed)) or not set(given) <= set(allowed):
            names = " and ".join(filter(None, (", ".join(allowed[:-1]), *allowed[-1:])))
            takes = f"exactly one of {names}" if len(allowed) > 1 else names or "no prompt"
            raise ValueError(f"op={self.options.op} takes {takes}, not {' and '.join(given) or 'nothing'}")
        if self.options.op == "subscribe" and self.options.subscription is None:
            raise ValueError("op=subscribe needs the name of a subscription")
        if self.options.tools and self.messages is None:
            raise ValueError("tools need messages")
        return self

    @model_validator(mode="after")
    def _check_turns(self) -> Self:
        if not self.options.continue_final_message:
            return self
        if self.options.add_generation_prompt and "add_generation_prompt" in self.options.model_fields_set:
            raise ValueError("continue_final_message and add_generation_prompt exclude each other")
        last = self.messages[-1] if self.messages else None
        if last is None or last.role != "assistant" or last.tool_calls:
            raise ValueError(
                "continue_final_message needs a last message of the assistant, without tool calls"
            )
        return self

    @property
    def size(self) -> int:
        """Approximate bytes of its tensors, without tools and grammars."""
        files = sum(map(len, (*self.images, *self.audio)))
        return files + self.text_size + 6 * len(self.options.prompt_token_ids or ())

    @property
    def text_size(self) -> int:
        """Approximate characters of the prompt or the messages."""
        return len(self.prompt or "") + sum(message.size for message in self.messages or ())

    def to_tensors(self) -> dict[str, Array]:
        """Name → 1-D array, for every field that is set. ``from_tensors`` is its inverse."""
        packed: dict[str, Array] = {}
        for name in tensors.INPUTS_BY_NAME.keys() - {"messages", "options"}:
            value = getattr(self, name)
            if value is not None and value != ():
                values = list(value) if isinstance(value, tuple) else [value]
                packed[name] = tensors.pack(tensors.INPUTS_BY_NAME[name], values)
        if self.messages is not None:
            packed["messages"] = tensors.pack(tensors.MESSAGES, [_MESSAGES.dump_json(self.messages)])
        if given := {name for name in Options.model_fields if getattr(self.options, name) != _DEFAULTS[name]}:
            packed["options"] = tensors.pack(tensors.OPTIONS, [self.options.model_dump_json(include=given)])
        return packed

    @classmethod
    def from_tensors(cls, arrays: Mapping[str, Array], parameters: Mapping[str, Any] | None = None) -> Self:
        """The request in these tensors and Triton request parameters.

        Args:
            arrays: name → array of any shape; STRING elements are ``bytes``.
            parameters: simple options that are not in ``options`` (``seed``, ``top_k``, …).

        Raises:
            InvalidRequest: names the field that is wrong.
        """
        values: dict[str, Any] = {}
        for name, array in arrays.items():
            values[name] = _read(name, array)
        values["options"] = _merge(values.get("options"), parameters or {})
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InvalidRequest.from_validation(error) from None


_DEFAULTS = dict(Options())
_MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(
    Annotated[tuple[Message, ...], Field(max_length=MAX_MESSAGES), BeforeValidator(check_parts), Bounds()]
)
_OPTIONS: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


_HEAD = 1000  # bytes that are examined
_DATA_URI = re.compile(rb"\s*data:[^,]*,", re.IGNORECASE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=%\s-]*")


def _read(name: str, array: Array) -> Any:
    """The Python value of one input tensor."""
    tensor = tensors.INPUTS_BY_NAME.get(name)
    if tensor is None:
        raise InvalidRequest("there is no such input", name)
    if tensor.dims == -1:
        if array.size > MAX_FILES:
            raise InvalidRequest(f"has {array.size:,} files; the limit is {MAX_FILES}", name)
        return tuple(_file(element) for element in tensors.unpack(array))
    if array.size != 1:
        raise InvalidRequest(f"has {array.size:,} values, expected 1", name)
    elements = tensors.unpack(array)
    if tensor.data_type == "TYPE_STRING" and len(elements[0]) > MAX_TEXT_BYTES:
        raise InvalidRequest(f"has {len(elements[0]):,} bytes; the limit is {MAX_TEXT_BYTES:,}", name)
    if tensor is tensors.MESSAGES or tensor is tensors.OPTIONS:
        return _json(name, elements[0])
    return _text(name, elements[0]) if tensor is tensors.PROMPT else elements[0]


def _json(name: str, text: bytes) -> Any:
    adapter: TypeAdapter[Any] = _MESSAGES if name == "messages" else _OPTIONS
    _count(name, text)
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        raise InvalidRequest.from_validation(error, prefix=name) from None


def _count(name: str, text: bytes) -> None:
    try:
        check_json(text)
    except JsonLimitExceeded as exceeded:
        raise InvalidRequest(f"has {exceeded}", name) from None


def read_parameters(text: str) -> dict[str, Any]:
    """Triton's request parameters, which it passes as JSON.

    Raises:
        InvalidRequest: there are too many.
    """
    if len(text) > MAX_PARAMETER_BYTES:
        raise InvalidRequest(f"has {len(text):,} bytes; the limit is {MAX_PARAMETER_BYTES:,}", "parameters")
    _count("parameters", text.encode())
    return dict(json.loads(text or "{}"))


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"is not UTF-8: {error.reason} at byte {error.start}", name) from None


def _file(data: bytes) -> bytes:
    """A file that is given as bytes, as base64, or as a data URI.

    No image or audio format consists of base64 characters only, so the two cannot be confused.
    """
    if _DATA_URI.match(data, 0, _HEAD):
        data = data[data.find(b",", 0, _HEAD) + 1 :]
    elif not _BASE64.fullmatch(data, 0, _HEAD):
        return data
    try:
        return decode_base64(data)
    except NotBase64:
        return data


def _merge(options: dict[str, Any] | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Merges options and request parameters; giving the same one twice is an error."""
    merged = dict(options or {})
    for name, value in parameters.items():
        if name.startswith("triton_"):  # Triton's own, such as triton_enable_empty_final_response
            continue
        if name in merged:
            raise InvalidRequest("is given both in options and as a parameter", name)
        merged[name] = (value,) if name == "stop" and isinstance(value, str) else value
    return merged
