"""Writes ``openai.md`` from the request schemas: ``make docs``; ``--check`` fails if it differs."""

import sys
from pathlib import Path

from pydantic import BaseModel

from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.schema.details import Details
from gemma_gateway.schema.extensions import Extensions
from gemma_gateway.schema.guided import Guided
from gemma_gateway.schema.policy import parameters
from gemma_gateway.schema.template import Templated
from gemma_gateway.schema.tokenize import DetokenizeRequest, TokenizeRequest

PAGE = Path(__file__).with_name("openai.md")
HEAD = """# OpenAI's API, parameter by parameter

What becomes of every parameter of a request, written by `make docs` from the request schemas; do not
edit. Each is

- **honoured**: it does what OpenAI's specification says;
- **no effect**: accepted, because that is harmless by the specification, and the note says why;
- **refused**: 400 with the parameter's path as `param`, unless it has one of the values in the note,
  which ask for nothing.

What has no effect or is refused is so with all that it may hold. In a path, brackets hold the `role` or
`type` that tells several forms apart. Parameters with `*` are not in OpenAI's document: most are named as
vLLM names them, the rest as other servers or newer clients of OpenAI name them.

- A value that asks for nothing is always accepted, and is as if it were not there: `null`, `false`, `[]` and
  `{}`, for every parameter that may be left out, nested ones too, whether it is honoured, refused or in no
  table at all. Where `false` or an empty value is one that the parameter can have, it counts:
  `parallel_tool_calls: false`, `structured_outputs.json: {}`.
- A parameter that is in no table is refused by its name when its value asks for something. Inside messages
  and their parts it is ignored instead: a history may hold what other servers wrote into it
  (`reasoning_content`, `annotations`, `id`, `cache_control`, `tool_calls[].index`, …).
- Parts of the types `input_text`, `output_text` and `input_image` are those of the types `text` and
  `image_url`; `thinking` is `reasoning`. A content that is `null` or `[]` is the empty text.
- An integer may be written as `5.0`. Numbers outside the range of a parameter are refused with it.
- `stream_options` without `stream` and `top_logprobs` 0 without `logprobs` ask for nothing.
- A tool that `tool_choice` does not allow is not shown to the model; a function that it names is called
  once.
- A `json_schema`, or a function, with `strict: true` is enforced entirely, or refused before anything is
  generated: the message names the keyword and where it stands. An object that lists its `properties` and
  says nothing of `additionalProperties` takes no others. Alternatives (`anyOf`, `oneOf`) that cannot be
  enforced are left out as long as others are left.
- Without `strict: true`, keywords that cannot be enforced are left out. The header `x-unenforced-keywords`
  names them, also of a stream. The finished answer is then validated against the whole schema: the header
  `x-schema-valid` says `true` or `false`, in a stream the comment `: x-schema-valid: …` before `[DONE]`. An
  answer that does not fit is sent all the same. Without these headers everything is enforced.
- Not enforced, or in part: `uniqueItems` (of few constants it is), `not` and `if` whose opposite cannot be
  said, `oneOf` whose schemas may overlap, patterns that look ahead or back, `maxContains`,
  `unevaluatedProperties` beside alternatives, `minProperties` and `maxProperties` of many optional
  properties, references out of the schema, numbers beyond 1e17 and with more than 15 digits. `format` is
  enforced for `date`, `date-time`, `time`, `duration`, `email`, `hostname`, `ipv4`, `ipv6`, `uuid`, `uri`;
  any other is an annotation, as is one beside a `pattern`. Names of properties that no keyword names may
  come twice. An array that a bound is about has at most 1,000 items.
- When `max_tokens` cuts a constrained answer, its last tokens are replaced by the shortest way to its end;
  these have a log probability of -9999. `finish_reason` is `length`.
- `structured_outputs` takes exactly one of its forms; `grammar` is in Lark's notation. The `guided_…`
  parameters are vLLM's older names of the same. `response_format` of the type `json_object` may have a
  `schema` (llama.cpp) or `value` (Text Generation Inference), which the answer fits.
- Events of a stream have a field `obfuscation`, as the specification says, unless
  `stream_options.include_obfuscation` is false.
- `best_of` candidates are ranked by the mean log probability of their tokens.
- A body may be compressed (`Content-Encoding: gzip` or `deflate`; another encoding is 415) and may begin with
  a UTF-8 byte order mark. How much it may hold is in [security.md](security.md#how-much).
- base64 may have whitespace, no padding, the URL-safe alphabet and percent escapes. A data URL may have
  parameters; without a media type, or with `application/octet-stream`, the content decides what it is.
- With `echo` and `logprobs`, the first token that is told has no probability: `null`, as OpenAI answers. The
  token that the model puts before every text is not told of a prompt that is a string. Of a prompt of token
  ids it is told as they are, but the echoed text does not contain it.
- `prompt_logprobs` answers with a field of that name, as vLLM does: a list with an entry for each token of
  the prompt, `null` for the first; the others map token ids to `logprob`, `rank` and `decoded_token`, for the
  token itself and the likeliest. A chat answer holds it once, a completion in each choice; in a stream it is
  in the first chunk. One answer tells at most 65,536 log probabilities of its prompt, a whole response with
  several prompts at most 1,048,576.
- `return_token_ids` answers with `prompt_token_ids` and, in each choice, `token_ids`, which include the token
  that ended the answer.
- `continue_final_message` leaves the turn of the last message open, and the answer goes on with it. Like
  every message it is trimmed, as in the model's own template; the answer does not repeat it. With
  `add_generation_prompt` true as well the request is refused; not given, it is false then. A grammar applies
  to what is new.
- `chat_template_kwargs`: Gemma's template reads no variables of its own, so a value that asks for something
  is refused by its name, unless it concerns reasoning, which the model does not do.
- Text parts of one message are joined exactly as they are; a message is trimmed at its ends, and so is a text
  beside an image or audio.
"""
PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("`POST /v1/chat/completions`", ChatRequest),
    ("`POST /v1/completions`", CompletionRequest),
    ("`POST /tokenize` *", TokenizeRequest),
    ("`POST /detokenize` *", DetokenizeRequest),
)
OURS = (
    *(name for name in Extensions.model_fields if name != "reasoning_effort"),
    "top_k",
    "min_p",
    "repetition_penalty",
    "repeat_penalty",
    "do_sample",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "cache_salt",
    *Guided.model_fields,
    *Details.model_fields,
    *Templated.model_fields,
    "stream_options.continuous_usage_stats",
    "response_format[json_object].schema",
    "response_format[json_object].value",
    "messages[user].content[audio_url]",
    "messages[assistant].content[reasoning]",
    "messages[tool].content[image_url]",
    "messages[tool].content[input_audio]",
    "messages[tool].content[audio_url]",
    "messages[tool].content[file]",
    "messages[tool].name",
    "moderation",
    "prompt_cache_options",
)
OURS_OF: dict[type[BaseModel], tuple[str, ...]] = {
    ChatRequest: ("best_of", "echo", "documents"),
    CompletionRequest: ("reasoning_effort",),
}
"""What is OpenAI's in one of the requests and not in the other."""


def is_ours(path: str, schema: type[BaseModel]) -> bool:
    """Whether a parameter, or what holds it, is not in OpenAI's document."""
    ours = (*OURS, *OURS_OF.get(schema, ()))
    return any(path == name or path.startswith((f"{name}.", f"{name}[")) for name in ours)


def table(schema: type[BaseModel]) -> str:
    """A row for each parameter: path, disposition, note."""
    lines = ["| parameter | | note |", "| --- | --- | --- |"]
    for row in parameters(schema).values():
        star = " *" if is_ours(row.path, schema) else ""
        note = row.note.replace("|", "\\|")
        lines.append(f"| `{row.path}`{star} | {row.disposition} | {note} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = (f"## {title}\n\n{table(schema)}\n" for title, schema in PARTS)
    return "\n".join([HEAD, *parts])


def main() -> None:
    """Command line."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/openai.md is not what the request schemas say: run make docs")


if __name__ == "__main__":
    main()
