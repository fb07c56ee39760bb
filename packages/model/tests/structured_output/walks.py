"""Random outputs under a constraint, with the tokenizer of the tiny checkpoint."""

import json
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from tokenizers import Tokenizer

from gemma_model.detokenizer import Detokenizer, TokenBytes
from gemma_model.engine_types import EngineOutput, StopCause
from gemma_model.structured_output.compiler import Bitmask, GrammarCompiler, GrammarConstraint
from gemma_model.tool_calls import CALL_START, ToolCallParser, join_deltas
from gemma_wire import Options, Tool, ToolCallDelta

VOCABULARY, STOPS, SOFT = 544, (1, 9), (513, 529)
TOOLS = (
    Tool(
        name="get_weather",
        parameters={
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["city", "unit"],
        },
    ),
    Tool(name="get", parameters={"type": "object", "properties": {"tags": {"type": "array"}}}),
    Tool(name="stop"),
)
BY_NAME = {tool.name: tool.parameters or {"maxProperties": 0} for tool in TOOLS}


@dataclass
class Walk:
    """A random output under a constraint: all allowed tokens have the same probability.

    Args:
        text: the text without tool calls.
        calls: the tool calls.
        raw: the text with the tool calls.
        ended: the output ended with a stop token.
        truncated: the output reached ``max_tokens``, and the grammar allowed more.
        ids: the tokens that were sent.
        unenforced: see ``CompiledGrammar``.
        fits: result of ``CompiledGrammar.is_valid``; ``None`` if everything is enforced.
    """

    text: str
    calls: list[ToolCallDelta]
    raw: str
    ended: bool
    truncated: bool
    ids: list[int]
    unenforced: tuple[str, ...]
    fits: bool | None


@dataclass
class Bench:
    grammars: GrammarCompiler
    table: TokenBytes

    def walk(self, options: Options, seed: int, max_tokens: int = 160) -> Walk:
        compiled = self.grammars.compile(options, max_tokens, frozenset(STOPS))
        assert compiled is not None
        constraint, budget, rng = compiled.constraint.fork(), compiled.completion(), random.Random(seed)
        sent: list[int] = []
        finish: StopCause | None = None
        count = 0
        while finish is None:
            allowed = ids_of(constraint.allowed())
            assert allowed[-1] < SOFT[0]
            token_id = rng.choice(allowed)
            count += 1
            finish = "stop" if token_id in STOPS else "length" if count == max_tokens else None
            if finish is None:
                constraint.advance(token_id)
            sent += budget.add(EngineOutput((token_id,), finish=finish))[0]
        call_start = CALL_START if options.tools else ""
        stream = Detokenizer(self.table, (), frozenset(STOPS), call_start, options.grammar is not None)
        output = stream.feed(sent) + stream.finish()
        calls = join_deltas(ToolCallParser().feed(output.call))
        truncated = finish == "length" and not budget.complete
        fits = compiled.is_valid and compiled.is_valid(
            output.text, [(call.name or "", call.arguments) for call in calls]
        )
        raw = self.table.decode(i for i in sent if i not in STOPS)
        return Walk(output.text, calls, raw, finish == "stop", truncated, sent, compiled.unenforced, fits)

    def constraint(self, options: Options, max_tokens: int = 100) -> GrammarConstraint:
        compiled = self.grammars.compile(options, max_tokens, frozenset(STOPS))
        assert compiled is not None
        return compiled.constraint


def ids_of(mask: Bitmask) -> list[int]:
    """The token ids of a bitmask."""
    return [int(i) for i in np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))]


@contextmanager
def bench_of(checkpoint: Path) -> Iterator[Bench]:
    """A compiler with the tokenizer of the tiny checkpoint; its child processes are ended."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    table = TokenBytes(tokenizer)
    with closing(GrammarCompiler(tokenizer, table, VOCABULARY, SOFT, STOPS, max_bytes=200_000)) as grammars:
        yield Bench(grammars, table)


def type_out(constraint: GrammarConstraint, text: str) -> None:
    for byte in text.encode():
        constraint.advance(17 + byte)  # the tiny tokenizer's byte tokens


def valid(instance: str, schema: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(json.loads(instance)))
