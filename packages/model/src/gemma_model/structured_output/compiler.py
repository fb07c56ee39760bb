"""Compiles the grammar and tools of a request into a constraint, with ``llguidance``.

JSON has at most one space after a comma or a colon, and no other whitespace. With unlimited whitespace in the
grammar, a small model or a high temperature could generate whitespace without end.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import llguidance
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from gemma_model.detokenizer import TokenBytes
from gemma_model.structured_output.forced_completion import BytesEncoder, ForcedCompletion, GrammarState
from gemma_model.structured_output.grammar_builder import LEVELS, LIMITS, byte_tokenizer
from gemma_model.structured_output.sandbox import Sandbox
from gemma_model.tool_calls import JsonScanner
from gemma_wire import InvalidRequest, JsonGrammar, Options

CACHED_GRAMMARS = 256
Bitmask = npt.NDArray[np.int32]
"""A bit for each token id, ``[ceil(vocabulary / 32)]``; see ``Constraint.allowed``."""


class GrammarTooComplex(ValueError):
    """The grammar became too complex during generation, although it compiled."""


class BitmaskTokenizer:
    """Computes bitmasks over the model's tokens.

    Args:
        tokenizer: llguidance's; its vocabulary has as many tokens as the model has logits.
        disallowed_ids: ids that no output may contain.
    """

    def __init__(self, tokenizer: llguidance.LLTokenizer, disallowed_ids: Iterable[int]) -> None:
        self.tokenizer = tokenizer
        bits = np.ones(-(-tokenizer.vocab_size // 32) * 32, np.bool_)
        bits[list(disallowed_ids)] = False
        self._always = np.packbits(bits, bitorder="little").view("<i4").astype(np.int32)

    def allowed(self, matcher: llguidance.LLMatcher) -> Bitmask:
        """The tokens that are allowed next.

        Raises:
            GrammarTooComplex: the tokens cannot be computed.
        """
        words = np.frombuffer(matcher.compute_bitmask(), "<i4")  # padded
        mask = words[: len(self._always)] & self._always
        if matcher.is_error():
            raise GrammarTooComplex("the grammar is too complex")
        return mask


@dataclass(eq=False)
class GrammarConstraint:
    """A ``Constraint`` that enforces a grammar.

    Args:
        matcher: the state of the grammar.
        tokenizer: computes the bitmask of the model's tokens.
    """

    matcher: llguidance.LLMatcher
    tokenizer: BitmaskTokenizer

    def allowed(self) -> Bitmask:
        """See ``Constraint.allowed``."""
        return self.tokenizer.allowed(self.matcher)

    def forced(self) -> list[int]:
        """Tokens of the text that must come next; see ``ForcingConstraint``."""
        return list(self.matcher.compute_ff_tokens())

    def advance(self, token_id: int) -> None:
        """See ``Constraint.advance``."""
        if not self.matcher.consume_token(token_id):
            raise GrammarTooComplex("the grammar does not allow the token, or is too complex")

    def fork(self) -> "GrammarConstraint":
        """See ``Constraint.fork``."""
        return GrammarConstraint(self.matcher.deep_copy(), self.tokenizer)


@dataclass(frozen=True)
class CompiledGrammar:
    """A request's grammar and tools, ready for generation.

    Args:
        constraint: for the engine.
        completion: creates a ``ForcedCompletion``; one for each choice.
        unenforced: keywords of the request's schemas that the constraint does not enforce.
        is_valid: validates a finished choice against the schemas that are not fully enforced. Takes its text
            and its tool calls (name and arguments); ``None`` if everything is enforced.
    """

    constraint: GrammarConstraint
    completion: Callable[[], ForcedCompletion]
    unenforced: tuple[str, ...] = ()
    is_valid: Callable[[str, list[tuple[str, str]]], bool] | None = None


@dataclass(frozen=True)
class _CachedGrammar:
    """The cached result for a grammar; see ``BuiltGrammar`` and ``ForcedCompletion.shortest``."""

    grammar: str
    unenforced: tuple[str, ...]
    to_validate: dict[str, Any] = field(default_factory=dict)
    shortest: int | None = None


class GrammarCompiler:
    """Compiles grammars; safe to call from several threads.

    Args:
        tokenizer: of the checkpoint.
        table: bytes of each token.
        vocabulary: number of logits of the model.
        disallowed_ids: ids that no output may contain.
        stop_token_ids: ids that end an output.
        max_bytes: maximum size of a grammar, or of all tools of a request.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        table: TokenBytes,
        vocabulary: int,
        disallowed_ids: Iterable[int],
        stop_token_ids: Iterable[int],
        max_bytes: int,
    ) -> None:
        stops = sorted(stop_token_ids)
        own = llguidance.LLTokenizer(tokenizer.to_str(), n_vocab=vocabulary, eos_token=stops or None)
        self._tokenizer, self._encoder = BitmaskTokenizer(own, disallowed_ids), BytesEncoder(own, table)
        self._byte_tokenizer = byte_tokenizer()
        self._max_bytes = max_bytes
        self._sandbox, self._validation_sandbox = Sandbox(), Sandbox(1)
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, _CachedGrammar] = OrderedDict()

    def compile(
        self, options: Options, max_tokens: int, stop_token_ids: frozenset[int]
    ) -> CompiledGrammar | None:
        """Compile a request's grammar and tools; ``None`` if it has neither.

        Args:
            options: of the request.
            max_tokens: maximum number of tokens of each choice.
            stop_token_ids: tokens that end a choice.

        Raises:
            InvalidRequest: names the grammar or tool that cannot be enforced, and the reason.
        """
        if options.grammar is None and not options.tools:
            return None
        _check_tools(options)
        try:
            key = options.model_dump_json(include={"grammar", "tools", "tool_choice", "parallel_tool_calls"})
        except ValueError:
            raise InvalidRequest("is not supported: it is nested too deeply", _field(options)) from None
        cached = self._look_up(key) or self._build(key, options)
        constraint = GrammarConstraint(
            self._matcher(self._tokenizer.tokenizer, cached.grammar), self._tokenizer
        )
        try:
            constraint.allowed()  # the first call is the slowest: it must not run in the engine's thread
        except GrammarTooComplex as error:
            raise InvalidRequest(f"is not supported: {error}", _field(options)) from None
        start = self._initial_state(cached.grammar, options)
        completion = partial(
            ForcedCompletion,
            start,
            self._encoder,
            max_tokens,
            stop_token_ids,
            _begins_with_text(options),
            cached.shortest,
        )
        is_valid = partial(self._is_valid, cached.to_validate) if cached.to_validate else None
        return CompiledGrammar(constraint, completion, cached.unenforced, is_valid)

    def close(self) -> None:
        """End the child processes."""
        self._sandbox.close()
        self._validation_sandbox.close()

    def _look_up(self, key: str) -> _CachedGrammar | None:
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    def _build(self, key: str, options: Options) -> _CachedGrammar:
        size = len(key.encode())
        if size > self._max_bytes:
            raise InvalidRequest(f"has {size:,} bytes; the limit is {self._max_bytes:,}", _field(options))
        result = self._build_in_sandbox(json.loads(key), options)
        if "message" in result:
            raise InvalidRequest(result["message"], result["field"])
        built = _CachedGrammar(result["grammar"], tuple(result["unenforced"]), result["to_validate"])
        built = replace(built, shortest=self._shortest_output(built.grammar, options))
        with self._lock:
            self._cache[key] = built
            if len(self._cache) > CACHED_GRAMMARS:
                self._cache.popitem(last=False)
        return built

    def _build_in_sandbox(self, content: dict[str, Any], options: Options) -> dict[str, Any]:
        """Build a grammar; enforce fewer keywords of schemas that are not strict if it takes too long."""
        for level in range(LEVELS if _may_be_relaxed(options) else 1):
            result = self._sandbox.run({"options": content, "level": level})
            if result is not None:
                return result
        limit = f"its compilation takes more than {self._sandbox.cpu_seconds} s, or too much memory"
        return {"message": f"is not supported: {limit}", "field": _field(options)}

    def _matcher(self, tokenizer: llguidance.LLTokenizer, grammar: str) -> llguidance.LLMatcher:
        """A new matcher, in 1 to 2 ms: copies would share the states of a lexer, which are limited."""
        return llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)

    def _initial_state(self, grammar: str, options: Options) -> GrammarState:
        has_json = bool(options.tools) or isinstance(options.grammar, JsonGrammar)
        return GrammarState(self._matcher(self._byte_tokenizer, grammar), JsonScanner() if has_json else None)

    def _shortest_output(self, grammar: str, options: Options) -> int | None:
        """Number of tokens of the shortest output that was found; ``None`` also with a custom tool."""
        if any(tool.custom for tool in options.tools):
            return None
        if _begins_with_text(options):
            return 0
        outputs = map(self._encoder.encode, self._initial_state(grammar, options).completions())
        return min((len(output) for output in outputs if output is not None), default=None)

    def _is_valid(self, schemas: dict[str, Any], text: str, calls: list[tuple[str, str]]) -> bool:
        documents = calls or ([("", text)] if "" in schemas else [])
        return all(self._validate(schemas[name], document) for name, document in documents if name in schemas)

    def _validate(self, schema: Any, document: str) -> bool:
        result = self._validation_sandbox.run({"schema": schema, "instance": document})
        return bool(result and result["valid"])


def _check_tools(options: Options) -> None:
    """Refuse a tool whose arguments are not an object."""
    for i, tool in enumerate(options.tools):
        type_name = (tool.parameters or {}).get("type", "object")
        if type_name != "object":
            raise InvalidRequest(
                f"is a schema for {type_name!r}; arguments must be an 'object'",
                f"options.tools[{i}].parameters",
            )


def _may_be_relaxed(options: Options) -> bool:
    """Whether at least one schema is not strict."""
    grammar = options.grammar
    own = isinstance(grammar, JsonGrammar) and not grammar.strict
    return own or any(not tool.strict and tool.custom is None for tool in options.tools)


def _begins_with_text(options: Options) -> bool:
    """Whether the output begins with text without a grammar, before the first tool call."""
    return bool(options.tools) and options.grammar is None and options.tool_choice == "auto"


def _field(options: Options) -> str:
    return "options.tools" if options.grammar is None else "options.grammar"
