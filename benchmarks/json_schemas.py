"""How many JSON schemas of a collection are refused, and whether the responses to the others are valid.

python -m benchmarks.json_schemas SCHEMAS [--per-folder 17] [--walks 3] [--checkpoint models/gemma3n-nano]
SCHEMAS holds folders of JSON schemas, one in each file, for example the folder `data` of JSONSchemaBench
(https://github.com/guidance-ai/jsonschemabench). The same number of each folder is taken, by a fixed seed.
No model runs: each token is drawn from all that the grammar allows, with equal probabilities.
A schema that is not enforced completely may get an invalid response, but then it must be reported as such.
Exit status 1 when a response is invalid and was not reported.
"""

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jsonschema
import numpy as np
from tokenizers import Tokenizer

from gemma_model.checkpoint import Checkpoint, open_checkpoint
from gemma_model.detokenizer import Detokenizer, TokenBytes
from gemma_model.engine_types import EngineOutput, StopCause
from gemma_model.structured_output.compiler import CompiledGrammar, GrammarCompiler
from gemma_wire import InvalidRequest, JsonGrammar, Options

MAX_GRAMMAR_BYTES: Final = 2 * 2**20
MAX_TOKENS: Final = 2000


@dataclass
class Rates:
    """What became of the schemas in one mode.

    Args:
        refused: error message without its path → number of schemas.
        unenforced: keyword → number of schemas that it is not enforced in.
        truncated: responses that needed more than ``MAX_TOKENS`` tokens; their finish reason is "length".
        reported: invalid responses that were reported as such.
        wrong: schemas with an invalid response that was not reported.
    """

    schemas: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unenforced: Counter[str] = field(default_factory=Counter)
    responses: int = 0
    truncated: int = 0
    reported: int = 0
    wrong: list[str] = field(default_factory=list)


class Compiler:
    """The grammars of one checkpoint's tokenizer."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        tokenizer = Tokenizer.from_file(str(checkpoint.folder / "tokenizer.json"))
        self.table, self.stops = TokenBytes(tokenizer), checkpoint.eos_token_ids
        self.grammars = GrammarCompiler(
            tokenizer, self.table, checkpoint.vocabulary, (), self.stops, MAX_GRAMMAR_BYTES
        )

    def compile(self, schema: Any, strict: bool) -> CompiledGrammar:
        """Raises InvalidRequest."""
        options = Options(grammar=JsonGrammar(json_schema=schema, strict=strict))
        made = self.grammars.compile(options, MAX_TOKENS, self.stops)
        assert made is not None
        return made

    def response(self, made: CompiledGrammar, seed: int) -> tuple[str, StopCause | None]:
        """Text and finish reason; all tokens that are allowed have equal probabilities."""
        constraint, budget, rng = made.constraint.fork(), made.completion(), random.Random(seed)
        sent: list[int] = []
        finish: StopCause | None = None
        for count in range(1, MAX_TOKENS + 1):
            bits = np.unpackbits(np.asarray(constraint.allowed()).view(np.uint8), bitorder="little")
            token_id = int(rng.choice(np.flatnonzero(bits)))
            finish = "stop" if token_id in self.stops else "length" if count == MAX_TOKENS else None
            if finish is None:
                constraint.advance(token_id)
            sent += budget.add(EngineOutput((token_id,), finish=finish))[0]
            if finish:
                break
        stream = Detokenizer(self.table, (), self.stops)
        return stream.feed(sent).text + stream.finish().text, finish


def sample(folder: Path, per_folder: int) -> Iterator[Path]:
    """The same files in each run."""
    for inner in sorted(each for each in folder.iterdir() if each.is_dir()):
        files = sorted(inner.glob("*.json"))
        yield from sorted(random.Random(0).sample(files, min(per_folder, len(files))))


def measure(compiler: Compiler, path: Path, strict: bool, walks: int, rates: Rates) -> None:
    """One schema in one mode."""
    schema = json.loads(path.read_text(encoding="utf-8"))
    rates.schemas += 1
    try:
        made = compiler.compile(schema, strict)
    except InvalidRequest as error:
        rates.refused[" ".join(str(error).split(" at $")[0].split()[:12])] += 1
        return
    rates.unenforced.update(made.unenforced)
    for seed in range(walks):
        text, finish = compiler.response(made, seed)
        rates.responses += 1
        if is_valid(text, schema):
            continue
        if finish == "length" and not is_json(text):
            rates.truncated += 1
        elif made.is_valid and not made.is_valid(text, []):
            rates.reported += 1
        else:
            rates.wrong.append(f"{path.parent.name}/{path.name} (seed {seed}): {text[:200]}")


def is_json(text: str) -> bool:
    """Whether it is a complete document."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def is_valid(text: str, schema: Any) -> bool:
    """By a validator that is not ours."""
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return is_json(text) and bool(validator(schema).is_valid(json.loads(text)))


def report(name: str, rates: Rates) -> None:
    """A paragraph."""
    refused = sum(rates.refused.values())
    print(f"{name}: {refused} of {rates.schemas} schemas refused ({refused / rates.schemas:.1%})")
    for message, count in rates.refused.most_common():
        print(f"  {count:4}  {message}")
    if rates.unenforced:
        print("  not enforced, in so many schemas:", dict(rates.unenforced.most_common()))
    invalid = f"{rates.reported} invalid and reported as such, {len(rates.wrong)} invalid and not reported"
    print(f"  {rates.responses} responses: {rates.truncated} truncated, {invalid}")
    for each in rates.wrong:
        print(f"    {each}")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("schemas", type=Path)
    parser.add_argument("--per-folder", type=int, default=17)
    parser.add_argument("--walks", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, default=Path("models/gemma3n-nano"))
    given = parser.parse_args()
    compiler = Compiler(open_checkpoint(given.checkpoint))
    modes = {True: Rates(), False: Rates()}
    with closing(compiler.grammars):
        for path in sample(given.schemas, given.per_folder):
            print(f"\r{path.parent.name}/{path.name}".ljust(78), end="", file=sys.stderr, flush=True)
            for strict, rates in modes.items():
                measure(compiler, path, strict, given.walks, rates)
    print(file=sys.stderr)
    report("strict", modes[True])
    report("not strict", modes[False])
    return any(rates.wrong for rates in modes.values())


if __name__ == "__main__":
    sys.exit(main())
