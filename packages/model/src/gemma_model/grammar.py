"""Grammars → constraints, by ``llguidance``: what may come next, token by token.

JSON is written compactly, with at most one space after a comma and a colon: whitespace without bounds is
where a small model, or a high temperature, loses itself.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import llguidance
from tokenizers import Tokenizer

from gemma_model.landing import Mask, Place, Vocabulary
from gemma_model.output import TokenBytes
from gemma_model.tools import CALL_END, CALL_START, parameters_schema
from gemma_model.trial import LIMITS, Trial
from gemma_wire import (
    ChoiceGrammar,
    Grammar,
    InvalidRequest,
    JsonGrammar,
    LarkGrammar,
    Options,
    RegexGrammar,
    Tool,
)

REMEMBERED = 256
"""Grammars that need no second trial."""
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}


@dataclass(frozen=True)
class Landings:
    """Which answers to a request have been led to their end, by their tokens up to where that began."""

    seen: set[tuple[int, ...]] = field(default_factory=set)

    def cut_short(self, token_ids: Sequence[int]) -> bool:
        """Whether the choice of these tokens was."""
        return any(tuple(token_ids[: len(start)]) == start for start in self.seen)


@dataclass(eq=False)
class GrammarConstraint:
    """A ``Constraint`` that is derived from a grammar, and lands before ``max_tokens`` are used up.

    Args:
        place: where it stands.
        left: how many more tokens the answer may have.
        look_at: when no more are left than these, it is asked how many the way to the end takes.
        another: when no more are left than these, no further call begins.
        free: text comes first, which may end anywhere: there is nothing to land until a call begins.
        landings: where a landing is noted.
        landing: whether it has begun.
        taken: the answer's tokens.
        tail: the last of a free text, where a call may begin.
    """

    place: Place
    left: int
    look_at: int
    another: int
    free: bool
    landings: Landings
    landing: bool = False
    taken: list[int] = field(default_factory=list)
    tail: str = ""

    def allowed(self) -> Mask:
        """See ``Constraint.allowed``."""
        if self.left <= self.look_at and not self.free and not self.landing:
            self._look()
        if self.landing:
            return self.place.homeward()
        mask, stops = self.place.allowed(), self.place.vocabulary.stops
        full = self.left <= self.another and not self.free and (mask & stops).any()
        return mask & stops if full else mask

    def advance(self, token_id: int) -> None:
        """See ``Constraint.advance``."""
        self.left -= 1
        self.taken.append(token_id)
        text = self.place.advance(token_id)
        if self.free:
            self.tail = (self.tail + text)[-len(text) - len(CALL_START) :]
            if CALL_START in self.tail:
                self.free = False
                self.place.begin_json()

    def fork(self) -> "GrammarConstraint":
        """See ``Constraint.fork``."""
        return replace(self, place=self.place.copy(), taken=self.taken.copy())

    def _look(self) -> None:
        """Whether it is time; if not, look again when half of what is to spare is gone."""
        way_home = self.place.way_home()
        self.look_at = _next_look(self.left, way_home, self.place)
        if self.left <= way_home + self.place.spare:
            self.landing = True
            self.landings.seen.add(tuple(self.taken))


def _next_look(left: int, way_home: int, place: Place) -> int:
    return way_home + max(place.spare, (left - way_home) // 2)


@dataclass(frozen=True)
class _Known:
    """What was found out about a grammar; see ``GrammarConstraint``."""

    way_home: int
    another: int


class Grammars:
    """Makes constraints; safe to call from several threads.

    Args:
        tokenizer: the checkpoint's.
        table: each token's bytes.
        vocabulary: as many tokens as the model has logits.
        unsayable: ids that no answer may hold.
        stop_token_ids: ids that end an answer.
        max_bytes: of a grammar.
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
        self._vocabulary = Vocabulary(own, table, unsayable, stops)
        self._max_bytes = max_bytes
        self._trial = Trial()
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def constraint(self, options: Options, max_tokens: int, landings: Landings) -> GrammarConstraint | None:
        """What the request's grammar and tools demand of each choice; nothing without either.

        Args:
            options: of the request.
            max_tokens: that a choice may have.
            landings: is told which choices were cut short.

        Raises:
            InvalidRequest: naming the grammar or the tool that cannot be honoured, and why.
        """
        if options.grammar is None and not options.tools:
            return None
        _check_tools(options)
        notation = _notation(options)
        known = self._look_up(notation) or self._find_out(notation, options)
        place = self._beginning(notation, options)
        place.allowed()  # the first takes longest: not in the engine's time
        free = bool(options.tools) and options.grammar is None and options.tool_choice == "auto"
        look_at = max_tokens // 2 if free else _next_look(max_tokens, known.way_home, place)
        return GrammarConstraint(place, max_tokens, look_at, known.another, free, landings)

    def close(self) -> None:
        """Leave no process behind."""
        self._trial.close()

    def _look_up(self, notation: str) -> _Known | None:
        with self._lock:
            if notation in self._known:
                self._known.move_to_end(notation)
            return self._known.get(notation)

    def _find_out(self, notation: str, options: Options) -> _Known:
        if complaint := self._complaint(notation):
            raise InvalidRequest(*self._blame(options, complaint))
        try:
            place = self._beginning(notation, options)
            known = _Known(place.way_home(), _longest_call(place, options))
        except ValueError as error:
            raise InvalidRequest(*self._blame(options, str(error))) from None
        with self._lock:
            self._known[notation] = known
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known

    def _beginning(self, notation: str, options: Options) -> Place:
        """Compiled anew, in a millisecond or two: matchers share what their lexers learn, up to a limit."""
        matcher = llguidance.LLMatcher(self._vocabulary.tokenizer, notation, log_level=0, limits=LIMITS)
        return Place(
            matcher, self._vocabulary, bool(options.tools) or isinstance(options.grammar, JsonGrammar)
        )

    def _complaint(self, notation: str) -> str:
        if len(notation.encode()) > self._max_bytes:
            return f"it has {len(notation.encode()):,} bytes; {self._max_bytes:,} are the limit"
        return self._trial.complaint(notation)

    def _blame(self, options: Options, complaint: str) -> tuple[str, str]:
        """Which part it is that cannot be honoured: the sentence, and the field."""
        parts = {
            f"options.tools[{i}].parameters": _one({"json_schema": _arguments(options, tool)})
            for i, tool in enumerate(options.tools)
        }
        if options.grammar is not None:
            parts["options.grammar"] = _one(_entry(options.grammar))
        if len(parts) == 1:
            return _sentence(complaint), next(iter(parts))
        own = ((self._complaint(notation), name) for name, notation in parts.items())
        complaint, name = next((found for found in own if found[0]), (complaint, "options.tools"))
        return _sentence(complaint), name


def _check_tools(options: Options) -> None:
    """What the schema of arguments must be, whatever else is in it."""
    for i, tool in enumerate(options.tools):
        kind = (tool.parameters or {}).get("type", "object")
        if kind != "object":
            raise InvalidRequest(
                f"is a schema for {kind!r}; arguments are an 'object'", f"options.tools[{i}].parameters"
            )


def _longest_call(beginning: Place, options: Options) -> int:
    """How many tokens the shortest call takes, of the tool for which these are most; 0 without tools."""
    longest = 0
    for tool in options.tools:
        place = beginning.copy()
        said = place.say(f"{CALL_START}{tool.name} ")
        longest = max(longest, said + place.way_home() + place.spare)
    return longest


def _sentence(complaint: str) -> str:
    """What llguidance says, on one line, without its drawings of where in the source."""
    said = re.split(r"<non-verbose/>|\n *\d+ \| ", complaint)[0]
    return f"cannot be honoured: {' '.join(said.split())[:300]}"


def _notation(options: Options) -> str:
    """The whole answer in llguidance's notation: what it may be beside calls, and the calls."""
    answer = [] if options.grammar is None else [_entry(options.grammar)]
    if not options.tools:
        return _one(*answer)
    calls = f'body ("\\n{CALL_START}" body)*' if options.parallel_tool_calls else "body"
    body = " | ".join(
        f'"{tool.name} " %json {json.dumps(_arguments(options, tool))} "{CALL_END}"' for tool in options.tools
    )
    if options.tool_choice == "required":
        start, answer = f'"{CALL_START}" {calls}', []
    elif answer:
        start = f'@answer | "{CALL_START}" {calls}'
    else:
        start = f'TEXT | begin {calls}\nbegin[lazy]: TEXT "{CALL_START}"\nTEXT: /(?s:.*)/'
    main = {"name": "main", "lark_grammar": f"start: {start}\nbody: {body}\n"}
    return json.dumps({"grammars": [main, *({"name": "answer", **entry} for entry in answer)]})


def _arguments(options: Options, tool: Tool) -> dict[str, Any]:
    """The schema of a call's arguments; without ``strict``, what cannot be enforced of it is left out."""
    enforced = tool.strict or options.tool_choice == "required"
    return {**parameters_schema(tool), "x-guidance": {**LAYOUT, "lenient": not enforced}}


def _one(entry: dict[str, Any]) -> str:
    return json.dumps({"grammars": [entry]})


def _entry(grammar: Grammar) -> dict[str, Any]:
    match grammar:
        case JsonGrammar(json_schema=schema):
            known = schema if isinstance(schema, dict) else {} if schema else {"enum": []}
            return {"json_schema": {**known, "x-guidance": LAYOUT}}
        case RegexGrammar(pattern=pattern):
            return {"lark_grammar": f"start: /{llguidance.regex_to_lark(pattern, 'dw')}/"}
        case ChoiceGrammar(choices=choices):
            listed = " | ".join(map(json.dumps, choices)).replace("\x7f", "\\u007f")
            return {"lark_grammar": f"start: {listed}"}
        case LarkGrammar(text=text):
            return {"lark_grammar": text}
