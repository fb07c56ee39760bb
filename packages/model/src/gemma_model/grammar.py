"""Grammars → constraints, by ``llguidance``: what may come next, token by token.

JSON is written compactly, with at most one space after a comma and a colon: whitespace without bounds is
where a small model, or a high temperature, loses itself.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from gemma_model.closing import Place, Speech, Tail
from gemma_model.notation import LEVELS, LIMITS, byte_tokenizer
from gemma_model.output import TokenBytes
from gemma_model.tools import JsonScanner
from gemma_model.trial import Trial
from gemma_wire import InvalidRequest, JsonGrammar, Options

REMEMBERED = 256
"""Grammars that need no second trial."""
Mask = npt.NDArray[np.int32]
"""A bit for each token id, ``[ceil(vocabulary / 32)]``; see ``Constraint.allowed``."""


class GrammarTooComplex(ValueError):
    """A grammar that was accepted, and turned out too complex on the way."""


class Vocabulary:
    """The model's tokens, as masks.

    Args:
        tokenizer: llguidance's; it has as many tokens as the model has logits.
        unsayable: ids that no answer may hold.
    """

    def __init__(self, tokenizer: llguidance.LLTokenizer, unsayable: Iterable[int]) -> None:
        self.tokenizer = tokenizer
        bits = np.ones(-(-tokenizer.vocab_size // 32) * 32, np.bool_)
        bits[list(unsayable)] = False
        self._sayable = np.packbits(bits, bitorder="little").view("<i4").astype(np.int32)

    def allowed(self, matcher: llguidance.LLMatcher) -> Mask:
        """What may come next.

        Raises:
            GrammarTooComplex: when it cannot be told any more.
        """
        words = np.frombuffer(matcher.compute_bitmask(), "<i4")  # padded
        mask = words[: len(self._sayable)] & self._sayable
        if matcher.is_error():
            raise GrammarTooComplex("the grammar is too complex to be followed")
        return mask


@dataclass(eq=False)
class GrammarConstraint:
    """A ``Constraint`` that is derived from a grammar.

    Args:
        matcher: where it stands.
        vocabulary: the model's.
    """

    matcher: llguidance.LLMatcher
    vocabulary: Vocabulary

    def allowed(self) -> Mask:
        """See ``Constraint.allowed``."""
        return self.vocabulary.allowed(self.matcher)

    def advance(self, token_id: int) -> None:
        """See ``Constraint.advance``."""
        if not self.matcher.consume_token(token_id):
            raise GrammarTooComplex(
                "the grammar cannot be followed: the token does not fit, or it is too complex"
            )

    def fork(self) -> "GrammarConstraint":
        """See ``Constraint.fork``."""
        return GrammarConstraint(self.matcher.deep_copy(), self.vocabulary)


@dataclass(frozen=True)
class Constrained:
    """What a request with a grammar or tools demands of its answer.

    Args:
        constraint: for the engine.
        tail: makes what closes a choice that ``max_tokens`` cuts; one for each choice.
        unenforced: keywords of its schemas that the constraint does not enforce.
        fits: whether a finished choice fits all that is not enforced, by its text and its calls (name and
            arguments); ``None`` where all is.
    """

    constraint: GrammarConstraint
    tail: Callable[[], Tail]
    unenforced: tuple[str, ...] = ()
    fits: Callable[[str, list[tuple[str, str]]], bool] | None = None


@dataclass(frozen=True)
class _Known:
    """What was found out about a request's grammar; see ``Prepared``, and ``shortest`` of ``Tail``."""

    notation: str
    unenforced: tuple[str, ...]
    checked: dict[str, Any] = field(default_factory=dict)
    shortest: int | None = None


class Grammars:
    """Makes constraints; safe to call from several threads.

    Args:
        tokenizer: the checkpoint's.
        table: each token's bytes.
        vocabulary: as many tokens as the model has logits.
        unsayable: ids that no answer may hold.
        stop_token_ids: ids that end an answer.
        max_bytes: of a grammar, or of all tools of a request.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        table: TokenBytes,
        vocabulary: int,
        unsayable: Iterable[int],
        stop_token_ids: Iterable[int],
        max_bytes: int,
    ) -> None:
        stops = sorted(stop_token_ids)
        own = llguidance.LLTokenizer(tokenizer.to_str(), n_vocab=vocabulary, eos_token=stops or None)
        self._vocabulary, self._speech = Vocabulary(own, unsayable), Speech(own, table)
        self._bytes = byte_tokenizer()
        self._max_bytes = max_bytes
        self._trial, self._validation = Trial(), Trial(1)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def constrain(
        self, options: Options, max_tokens: int, stop_token_ids: frozenset[int]
    ) -> Constrained | None:
        """What the request's grammar and tools demand of each choice; nothing without either.

        Args:
            options: of the request.
            max_tokens: that a choice may have.
            stop_token_ids: tokens that end it.

        Raises:
            InvalidRequest: naming the grammar or the tool that cannot be honoured, and why.
        """
        if options.grammar is None and not options.tools:
            return None
        _check_tools(options)
        try:
            asked = options.model_dump_json(
                include={"grammar", "tools", "tool_choice", "parallel_tool_calls"}
            )
        except ValueError:
            raise InvalidRequest("cannot be honoured: it is nested too deeply", _whole(options)) from None
        known = self._look_up(asked) or self._find_out(asked, options)
        constraint = GrammarConstraint(
            self._compile(self._vocabulary.tokenizer, known.notation), self._vocabulary
        )
        try:
            constraint.allowed()  # the first takes longest: not in the engine's time
        except GrammarTooComplex as error:
            raise InvalidRequest(f"cannot be honoured: {error}", _whole(options)) from None
        start = self._start(known.notation, options)
        tail = partial(
            Tail, start, self._speech, max_tokens, stop_token_ids, _text_first(options), known.shortest
        )
        fits = partial(self._fits, known.checked) if known.checked else None
        return Constrained(constraint, tail, known.unenforced, fits)

    def close(self) -> None:
        """Leave no process behind."""
        self._trial.close()
        self._validation.close()

    def _look_up(self, asked: str) -> _Known | None:
        with self._lock:
            if asked in self._known:
                self._known.move_to_end(asked)
            return self._known.get(asked)

    def _find_out(self, asked: str, options: Options) -> _Known:
        size = len(asked.encode())
        if size > self._max_bytes:
            raise InvalidRequest(f"has {size:,} bytes; {self._max_bytes:,} are the limit", _whole(options))
        answer = self._prepare(json.loads(asked), options)
        if "message" in answer:
            raise InvalidRequest(answer["message"], answer["field"])
        known = _Known(answer["notation"], tuple(answer["unenforced"]), answer["checked"])
        known = _Known(
            known.notation, known.unenforced, known.checked, self._shortest(known.notation, options)
        )
        with self._lock:
            self._known[asked] = known
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _prepare(self, asked: dict[str, Any], options: Options) -> dict[str, Any]:
        """With all of the schemas, or with less of those that are not strict."""
        for level in range(LEVELS if _may_be_less(options) else 1):
            answer = self._trial.ask({"options": asked, "level": level})
            if answer is not None:
                return answer
        limit = f"it takes more than {self._trial.cpu_seconds} s, or too much memory, to prepare"
        return {"message": f"cannot be honoured: {limit}", "field": _whole(options)}

    def _compile(self, tokenizer: llguidance.LLTokenizer, notation: str) -> llguidance.LLMatcher:
        """Anew, in a millisecond or two: matchers share what their lexers learn, up to a limit."""
        return llguidance.LLMatcher(tokenizer, notation, log_level=0, limits=LIMITS)

    def _start(self, notation: str, options: Options) -> Place:
        json_like = bool(options.tools) or isinstance(options.grammar, JsonGrammar)
        return Place(self._compile(self._bytes, notation), JsonScanner() if json_like else None)

    def _shortest(self, notation: str, options: Options) -> int | None:
        if _text_first(options):
            return 0
        ways = (self._speech.tokens(way) for way in self._start(notation, options).endings())
        return min((len(way) for way in ways if way is not None), default=None)

    def _fits(self, checked: dict[str, Any], text: str, calls: list[tuple[str, str]]) -> bool:
        answers = calls or ([("", text)] if "" in checked else [])
        return all(self._is_valid(checked[name], answer) for name, answer in answers if name in checked)

    def _is_valid(self, schema: Any, answer: str) -> bool:
        found = self._validation.ask({"schema": schema, "answer": answer})
        return bool(found and found["valid"])


def _check_tools(options: Options) -> None:
    """What the schema of arguments must be, whatever else is in it."""
    for i, tool in enumerate(options.tools):
        kind = (tool.parameters or {}).get("type", "object")
        if kind != "object":
            raise InvalidRequest(
                f"is a schema for {kind!r}; arguments are an 'object'", f"options.tools[{i}].parameters"
            )


def _may_be_less(options: Options) -> bool:
    grammar = options.grammar
    own = isinstance(grammar, JsonGrammar) and not grammar.strict
    return own or any(not tool.strict for tool in options.tools)


def _text_first(options: Options) -> bool:
    """Whether text that may end anywhere comes before the first call."""
    return bool(options.tools) and options.grammar is None and options.tool_choice == "auto"


def _whole(options: Options) -> str:
    return "options.tools" if options.grammar is None else "options.grammar"
