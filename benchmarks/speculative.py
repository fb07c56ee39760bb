"""The native engine with and without drafts, in turn in one process: no Triton, no HTTP.

python -m benchmarks.speculative FOLDER [--clients 1 16] [--rounds 5]

The responses are chosen so that the result does not depend on what a small model happens to write: JSON is
written by the model under a grammar of ten properties, and a constraint makes it write the other texts token
by token. Drafts do not know this constraint.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.quality_texts import TEXTS
from benchmarks.rounds import Ratio

from gemma_model import malloc
from gemma_model.checkpoint import Checkpoint, open_checkpoint
from gemma_model.engine.drafts.speculation import Speculation
from gemma_model.engine.engine import NativeEngine
from gemma_model.engine.kv_slots import KVSlots
from gemma_model.engine.model_loader import LoadedRunner
from gemma_model.engine.prefix_cache import PrefixCache
from gemma_model.engine.scheduler import Scheduler
from gemma_model.engine_types import (
    EngineInfo,
    EngineOutput,
    EngineRequest,
    EngineSamplingParams,
    TokenizedPrompt,
)
from gemma_model.request_processor import RequestProcessor
from gemma_model.settings import Settings
from gemma_wire import JsonGrammar, Options, Request

SLOTS, DRAFT, LENGTH, PROSE_TOKENS, REWRITTEN_TOKENS = 16, 16, 1536, 400, 400
CHANGED_WORD = 40
"""Every so manieth word of a text is changed when it is rewritten."""
_NAME = {"type": "string", "pattern": "^[A-Z][a-z]{2,9}$"}
PROPERTIES: Mapping[str, Any] = {
    "first_name": _NAME,
    "last_name": _NAME,
    "age": {"type": "integer", "minimum": 18, "maximum": 99},
    "city": _NAME,
    "country_code": {"type": "string", "pattern": "^[A-Z]{2}$"},
    "is_member": {"type": "boolean"},
    "membership": {"enum": ["basic", "silver", "gold"]},
    "number_of_orders": {"type": "integer", "minimum": 0, "maximum": 999},
    "newsletter": {"type": "boolean"},
    "preferred_language": {"enum": ["english", "german", "french"]},
}
SCHEMA = {
    "type": "object",
    "properties": PROPERTIES,
    "required": list(PROPERTIES),
    "additionalProperties": False,
}
Clock = Callable[[], float]
MakeRequest = Callable[[int], EngineRequest]
"""The request of one client, given its number."""


class FixedText:
    """A constraint that allows one text only, and then the end.

    Args:
        token_ids: of the text.
        stop_id: the token that ends it.
        vocab: number of logits of the model.
    """

    def __init__(self, token_ids: Sequence[int], stop_id: int, vocab: int, done: int = 0) -> None:
        self._token_ids, self._stop_id, self._vocab, self._done = token_ids, stop_id, vocab, done

    def allowed(self) -> npt.NDArray[np.int32]:
        """See ``Constraint``."""
        words = np.zeros(-(-self._vocab // 32), np.uint32)
        token_id = self._token_ids[self._done] if self._done < len(self._token_ids) else self._stop_id
        words[token_id // 32] = 1 << token_id % 32
        return words.view(np.int32)

    def advance(self, token_id: int) -> None:
        """See ``Constraint``."""
        self._done += token_id == self._token_ids[self._done]

    def fork(self) -> "FixedText":
        """See ``Constraint``."""
        return FixedText(self._token_ids, self._stop_id, self._vocab, self._done)


class Cases:
    """The requests of each case.

    Args:
        checkpoint: whose tokenizer is used.
        settings: of the engines.
    """

    def __init__(self, checkpoint: Checkpoint, settings: Settings) -> None:
        self._checkpoint, self._processor = checkpoint, RequestProcessor(checkpoint, settings)
        self._stop_ids = checkpoint.eos_token_ids
        self.make: Mapping[str, MakeRequest] = {
            "JSON, ten properties": self._json,
            "rewriting, from the prompt": lambda client: self._rewriting(client, predicts=False),
            "rewriting, with `prediction`": lambda client: self._rewriting(client, predicts=True),
            "prose": self._prose,
        }

    def close(self) -> None:
        """End the child processes."""
        self._processor.close()

    def _json(self, client: int) -> EngineRequest:
        prompt = f"<start_of_turn>user\nWrite customer {client} as JSON.<end_of_turn>\n<start_of_turn>model\n"
        options = Options(grammar=JsonGrammar(json_schema=SCHEMA), seed=client)
        request = Request(prompt=prompt, max_tokens=400, temperature=1.0, options=options)
        return self._processor.process(request).engine_request

    def _rewriting(self, client: int, predicts: bool) -> EngineRequest:
        words = _words(client)
        changed = [
            word if place % CHANGED_WORD != CHANGED_WORD // 2 else words[place // 3]
            for place, word in enumerate(words)
        ]
        original, wanted = (self._tokens(" ".join(text))[:REWRITTEN_TOKENS] for text in (words, changed))
        request = self._fixed("Improve this text: ", original, wanted)
        if not predicts:
            return request
        return replace(request, prompt=TokenizedPrompt(request.prompt.token_ids[:8]), prediction=original)

    def _prose(self, client: int) -> EngineRequest:
        wanted = self._tokens(" ".join(_words(client)))[:PROSE_TOKENS]
        return self._fixed("Tell me about your day.", (), wanted)

    def _fixed(self, instruction: str, text: tuple[int, ...], wanted: tuple[int, ...]) -> EngineRequest:
        prompt = TokenizedPrompt((2, *self._tokens(instruction), *text, *self._tokens("\n")))
        constraint = FixedText(wanted, min(self._stop_ids), self._checkpoint.vocabulary)
        sampling = EngineSamplingParams(temperature=0.0)
        tokens = len(wanted) + 1
        return EngineRequest(prompt, sampling, tokens, stop_token_ids=self._stop_ids, constraint=constraint)

    def _tokens(self, text: str) -> tuple[int, ...]:
        request = Request(prompt=text, max_tokens=1, options=Options(op="tokenize"))
        return tuple(i for i in self._processor.tokens(request).token_ids if i != 2)


def _words(client: int) -> list[str]:
    """All texts, in an order of the client's own."""
    start = client % len(TEXTS)
    return " ".join((*TEXTS[start:], *TEXTS[:start])).split(" ")


@dataclass
class Measured:
    """The tokens of each client, and all of them together per second from the first token on."""

    outputs: list[list[int]]
    speed: float


def measure(engine: NativeEngine, requests: Sequence[EngineRequest], clock: Clock) -> Measured:
    """Run requests together."""
    outputs: list[list[int]] = [[] for _ in requests]
    times: list[float] = []

    def listener(own: list[int]) -> Callable[[EngineOutput], None]:
        def on_output(output: EngineOutput) -> None:
            assert output.error is None, output.error
            own.extend(output.token_ids)
            times.extend([clock()] * len(output.token_ids))

        return on_output

    for request, own in zip(requests, outputs, strict=True):
        engine.submit(request, listener(own))
    while engine.step():
        pass
    return Measured(outputs, (len(times) - len(requests)) / (times[-1] - times[0]))


def make_engine(loaded: LoadedRunner, speculation: Speculation | None, clock: Clock) -> NativeEngine:
    """An engine without a thread and without a prefix cache."""
    info = EngineInfo("native", "cpu", "", 0, SLOTS, running=0, waiting=0)
    scheduler = Scheduler(KVSlots(SLOTS), PrefixCache(0, loaded.kept), SLOTS, 512)
    return NativeEngine(loaded.runner, scheduler, info, loaded.length, speculation, clock=clock)


def main() -> None:
    """Command line."""
    malloc.tune()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="per second of CPU time, on a busy machine")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the computation")
    parser.add_argument("--case", action="append", help="its first words; default: all")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.cpu_time else time.perf_counter
    settings = Settings(
        device="cpu",
        checkpoint=given.folder,
        max_num_seqs=SLOTS,
        max_model_len=LENGTH,
        prefix_cache_bytes=0,
        speculative_tokens=DRAFT,
        towers="none",
    )
    loaded = LoadedRunner(given.folder, settings)
    cases = Cases(open_checkpoint(given.folder), settings)
    print("| case | clients | tokens/s without | with drafts | ratio | tokens drafted | accepted |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for (name, make), clients in itertools.product(cases.make.items(), given.clients):
        if not given.case or any(name.startswith(start) for start in given.case):
            requests = [make(client) for client in range(clients)]
            print(row(name, loaded, requests, given.rounds, clock), flush=True)
    cases.close()
    loaded.runner.close()


def row(name: str, loaded: LoadedRunner, requests: Sequence[EngineRequest], rounds: int, clock: Clock) -> str:
    """A row of the table: without drafts and with them in turn, and the outputs are equal."""
    with_drafts = make_engine(loaded, Speculation(DRAFT), clock)
    engines = {"without": make_engine(loaded, None, clock), "with": with_drafts}
    speeds: dict[str, list[float]] = {side: [] for side in engines}
    for number in range(rounds + 1):  # the first round warms up
        order = list(engines) if number % 2 else [*engines][::-1]
        measured = {side: measure(engines[side], requests, clock) for side in order}
        assert measured["with"].outputs == measured["without"].outputs, "drafts have changed a text"
        for side, one in measured.items():
            speeds[side] += [one.speed] if number else []
    totals = with_drafts.info().totals
    tokens = sum(map(len, measured["with"].outputs)) * (rounds + 1)
    ratio = Ratio.of(speeds["with"], speeds["without"])
    middle = {side: sorted(own)[len(own) // 2] for side, own in speeds.items()}
    shares = [sum(counts.values()) / tokens for counts in (totals.drafted, totals.accepted)]
    cells = (f"{middle['without']:.1f}", f"{middle['with']:.1f}", str(ratio), *(f"{x:.0%}" for x in shares))
    return f"| {name} | {len(requests)} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
