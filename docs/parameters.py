"""Writes ``openai.md`` from the request schemas: ``make docs``; ``--check`` fails if it differs."""

import sys
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from gemma_gateway.schema.chat import ChatRequest
from gemma_gateway.schema.completions import CompletionRequest
from gemma_gateway.schema.policy import Parameter, parameters
from gemma_gateway.schema.tokenize import DetokenizeRequest, TokenizeRequest

PAGE = Path(__file__).with_name("openai.md")
HEAD = """# OpenAI's API, parameter by parameter

What becomes of every parameter of a request, written by `make docs` from the request schemas; do not
edit. Each is

- **honoured**: it does what OpenAI's specification says;
- **no effect**: accepted, because that is harmless by the specification, and the note says why;
- **refused**: 400 with the parameter's path as `param`, unless it has one of the values in the note,
  which ask for nothing.

What has no effect or is refused is so with all that it may hold. What is not in a table is refused as an
unknown parameter. In a path, brackets hold the `role` or `type` that tells several forms apart.
Parameters with `*` are not in OpenAI's document: most are named as vLLM names them, the rest stand in
answers or in newer clients of OpenAI.

- A tool that `tool_choice` does not allow is not shown to the model; a function that it names is called
  once.
- The answer to a `json_schema` always fits the schema, `strict` or not. A schema that cannot be honoured is
  refused before anything is generated.
- `structured_outputs` takes exactly one of its forms; `grammar` is in Lark's notation.
- Events of a stream have a field `obfuscation`, as the specification says, unless
  `stream_options.include_obfuscation` is false.
- `best_of` candidates are ranked by the mean log probability of their tokens.
- With `echo` and `logprobs`, the first token of a prompt has no probability: `null`, as OpenAI answers. A
  token that the model puts before a text of its own is not told.
"""
PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("`POST /v1/chat/completions`", ChatRequest),
    ("`POST /v1/completions`", CompletionRequest),
    ("`POST /tokenize` *", TokenizeRequest),
    ("`POST /detokenize` *", DetokenizeRequest),
)
OURS = (
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
    "stop_token_ids",
    "structured_outputs",
    "messages[assistant].annotations",
    "messages[tool].name",
    "moderation",
    "prompt_cache_options",
)


def table(rows: Iterable[Parameter]) -> str:
    """A row for each parameter: path, disposition, note."""
    lines = ["| parameter | | note |", "| --- | --- | --- |"]
    for row in rows:
        star = " *" if row.path.startswith(OURS) else ""
        note = row.note.replace("|", "\\|")
        lines.append(f"| `{row.path}`{star} | {row.disposition} | {note} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = (f"## {title}\n\n{table(parameters(schema).values())}\n" for title, schema in PARTS)
    return "\n".join([HEAD, *parts])


def main() -> None:
    """Command line."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("docs/openai.md is not what the request schemas say: run make docs")


if __name__ == "__main__":
    main()
