"""What a model of random weights says under a constraint, in the tokens of the tiny checkpoint."""

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

from gemma_model.grammar import GrammarConstraint, Grammars, Mask
from gemma_model.output import TextStream, TokenBytes
from gemma_model.protocol import Step, StopCause
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
    """What a model of random weights says under a constraint: every allowed token is as likely.

    Args:
        said: the text with the calls in it.
        ended: it ended by itself.
        cut_short: it did not, and its end was taken back for another.
        ids: its tokens as they were sent.
    """

    text: str
    calls: list[ToolCallDelta]
    said: str
    ended: bool
    cut_short: bool
    ids: list[int]
    unenforced: tuple[str, ...]
    fits: bool | None


@dataclass
class Bench:
    grammars: Grammars
    table: TokenBytes

    def walk(self, options: Options, seed: int, max_tokens: int = 160) -> Walk:
        made = self.grammars.constrain(options, max_tokens, frozenset(STOPS))
        assert made is not None
        constraint, tail, rng = made.constraint.fork(), made.tail(), random.Random(seed)
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
            sent += tail.take(Step((token_id,), finish=finish))[0]
        call_start = CALL_START if options.tools else ""
        stream = TextStream(self.table, (), frozenset(STOPS), call_start, options.grammar is not None)
        said = stream.feed(sent) + stream.finish()
        calls = join_deltas(CallParser().feed(said.call))
        cut = finish == "length" and not tail.complete
        fits = made.fits and made.fits(said.text, [(call.name or "", call.arguments) for call in calls])
        whole = self.table.spell_out(i for i in sent if i not in STOPS)
        return Walk(said.text, calls, whole, finish == "stop", cut, sent, made.unenforced, fits)

    def constraint(self, options: Options, max_tokens: int = 100) -> GrammarConstraint:
        made = self.grammars.constrain(options, max_tokens, frozenset(STOPS))
        assert made is not None
        return made.constraint


def ids_of(mask: Mask) -> list[int]:
    """The tokens of a mask."""
    return [int(i) for i in np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))]


@contextmanager
def bench_of(checkpoint: Path) -> Iterator[Bench]:
    """A bench with the tokenizer of the tiny checkpoint; it leaves no process behind."""
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    table = TokenBytes(tokenizer)
    with closing(Grammars(tokenizer, table, VOCABULARY, SOFT, STOPS, max_bytes=200_000)) as grammars:
        yield Bench(grammars, table)


def type_out(constraint: GrammarConstraint, text: str) -> None:
    for byte in text.encode():
        constraint.advance(17 + byte)  # the tiny tokenizer's byte tokens


def valid(instance: str, schema: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(json.loads(instance)))
