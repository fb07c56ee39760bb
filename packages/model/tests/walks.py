"""What a model of random weights says under a constraint, in the tokens of the tiny checkpoint."""

import json
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
from tokenizers import Tokenizer

from gemma_model.grammar import GrammarConstraint, Grammars, Landings
from gemma_model.landing import ids_of
from gemma_model.output import TextStream, TokenBytes
from gemma_model.tools import CALL_START, CallParser, join_deltas
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
    """What a model of random weights says under a constraint: every allowed token is as likely."""

    text: str
    calls: list[ToolCallDelta]
    ended: bool
    cut_short: bool
    tokens: int


@dataclass
class Bench:
    grammars: Grammars
    table: TokenBytes

    def walk(self, options: Options, seed: int, max_tokens: int = 160) -> Walk:
        landings, rng, ids = Landings(), random.Random(seed), list[int]()
        constraint = self.grammars.constraint(options, max_tokens, landings)
        assert constraint is not None
        constraint = constraint.fork()
        ended = False
        while len(ids) < max_tokens and not ended:
            allowed = ids_of(constraint.allowed())
            assert allowed[-1] < SOFT[0]
            ids.append(rng.choice(allowed))
            ended = ids[-1] in STOPS
            if not ended:
                constraint.advance(ids[-1])
        call_start = CALL_START if options.tools else ""
        stream = TextStream(self.table, (), frozenset(STOPS), call_start, options.grammar is not None)
        said = stream.feed(ids) + stream.finish()
        calls = join_deltas(CallParser().feed(said.call))
        return Walk(said.text, calls, ended, landings.cut_short(ids), len(ids))

    def constraint(self, options: Options, max_tokens: int = 100) -> GrammarConstraint:
        made = self.grammars.constraint(options, max_tokens, Landings())
        assert made is not None
        return made


@contextmanager
def bench_of(checkpoint: Path) -> Iterator[Bench]:
    """A bench with the tokenizer of the tiny checkpoint; it leaves no process behind."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    table = TokenBytes(tokenizer)
    with closing(Grammars(tokenizer, table, VOCABULARY, SOFT, STOPS, max_bytes=20_000)) as grammars:
        yield Bench(grammars, table)


def type_out(constraint: GrammarConstraint, text: str) -> None:
    for byte in text.encode():
        constraint.advance(17 + byte)  # the tiny tokenizer's byte tokens


def valid(instance: str, schema: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(json.loads(instance)))
