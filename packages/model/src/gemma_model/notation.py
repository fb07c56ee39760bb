"""What a request demands of an answer, in the grammar library's notation; run where it can be killed.

A JSON schema is rewritten (``schema``), compiled, and followed for some steps. What is not strict is tried
again with less of it until it can be honoured; the keywords that are not enforced are told.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import llguidance
import numpy as np

from gemma_model.schema.findings import Schema, SchemaError
from gemma_model.schema.rewrite import rewrite
from gemma_model.tools import CALL_END, CALL_START, parameters_schema
from gemma_wire import ChoiceGrammar, Grammar, InvalidRequest, JsonGrammar, LarkGrammar, Options, RegexGrammar

STEPS = 64
"""So many bytes of an answer are tried, since some grammars are small and cost much to follow."""
LIMITS = llguidance.LLParserLimits(
    max_lexer_states=50_000,  # 2 kB each
    initial_lexer_fuel=20_000_000,  # the time limit is what counts
    verbose_errors=False,
)
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
ESCAPES = 'nrbtf\\"'
"""Without ``u``: with it, the library takes an escaped name for another name than the same one in plain."""
LEVELS = 3
"""All of a schema; its structure alone; its type alone."""
_CONTROLS = re.compile(r"\\u00[01][0-9a-f]|\x7f")


@dataclass
class Prepared:
    """A notation that can be honoured.

    Args:
        notation: of the whole answer.
        unenforced: keywords of its schemas that it does not enforce.
        checked: what a finished answer is to be validated against: its own schema under ``""``, the
            arguments of a call under the tool's name.
    """

    notation: str = ""
    unenforced: dict[str, str] = field(default_factory=dict)
    checked: dict[str, Any] = field(default_factory=dict)


def byte_tokenizer() -> llguidance.LLTokenizer:
    """A token for each byte, and an end."""

    class Bytes:
        eos_token_id, bos_token_id, special_token_ids = 256, None, (256,)
        tokens = (*(bytes([byte]) for byte in range(256)), b"<eos>")

        def __call__(self, text: bytes) -> list[int]:
            return list(text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))


def try_out(grammar: str, tokenizer: llguidance.LLTokenizer) -> str:
    """Compile a grammar and follow it for some steps; what is wrong with it, or nothing."""
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    choose = random.Random(0).choice
    for _ in range(STEPS):
        if matcher.is_error() or matcher.is_stopped():
            break
        words = np.frombuffer(matcher.compute_bitmask(), "<i4")
        allowed = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
        if not len(allowed):
            return "nothing fits it"
        matcher.consume_token(choose(allowed.tolist()))
    return matcher.get_error()


class Preparer:
    """Turns requests into notations. Not to be trusted with hostile ones in a process that must live.

    Args:
        level: how much of a schema that is not strict is dropped at least.
    """

    def __init__(self, level: int = 0) -> None:
        self.level = level
        self._tokenizer = byte_tokenizer()
        self._complaints: dict[str, str] = {}

    def prepare(self, options: Options) -> Prepared:
        """The notation of a request with a grammar or tools.

        Raises:
            InvalidRequest: naming the grammar or the tool that cannot be honoured, and why.
        """
        prepared = Prepared()
        calls = [self._call(i, options, prepared) for i in range(len(options.tools))]
        answer = None if options.grammar is None else self._answer(options.grammar, prepared)
        prepared.notation = _whole(options, answer, calls)
        if complaint := try_out(prepared.notation, self._tokenizer):
            field_ = "options.grammar" if answer else "options.tools"
            raise InvalidRequest(f"cannot be honoured: {explain(complaint)}", field_)
        return prepared

    def _answer(self, grammar: Grammar, prepared: Prepared) -> dict[str, Any]:
        if isinstance(grammar, JsonGrammar):
            given = grammar.json_schema
            found = self._schema(given, grammar.strict, prepared, "options.grammar")
            if prepared.unenforced:
                prepared.checked[""] = given
            return found
        entry = _entry(grammar)
        if complaint := try_out(_one(entry), self._tokenizer):
            raise InvalidRequest(f"cannot be honoured: {explain(complaint)}", "options.grammar")
        return entry

    def _call(self, i: int, options: Options, prepared: Prepared) -> str:
        tool, name = options.tools[i], f"options.tools[{i}].parameters"
        before = set(prepared.unenforced)
        schema = parameters_schema(tool)
        entry = self._schema(schema, tool.strict, prepared, name)["json_schema"]
        if set(prepared.unenforced) - before or (not tool.strict and self.level):
            prepared.checked[tool.name] = tool.parameters or {}
        return f'"{tool.name} " %json {json.dumps(entry)} "{CALL_END}"'

    def _schema(self, schema: Schema, strict: bool, prepared: Prepared, name: str) -> dict[str, Any]:
        """An entry that enforces a schema, as far as possible or as required."""
        complaint = ""
        for level in (0,) if strict else range(self.level, LEVELS):
            try:
                enforced, left_out = self._at_level(schema, strict, level)
            except SchemaError as error:
                raise InvalidRequest(f"cannot be honoured: {error}", name) from None
            except RecursionError:
                raise InvalidRequest("cannot be honoured: it is nested too deeply", name) from None
            entry = json_entry(enforced)
            complaint = try_out(_one(entry), self._tokenizer)
            if not complaint:
                prepared.unenforced |= {word: f"{name}: {word}" for word in left_out}
                return entry
            if "nsatisfiable" in complaint and not left_out:
                break
        raise InvalidRequest(f"cannot be honoured: {explain(complaint)}", name)

    def _at_level(self, schema: Schema, strict: bool, level: int) -> tuple[Schema, list[str]]:
        if level == LEVELS - 1:
            kind = schema.get("type") if isinstance(schema, dict) else None
            return ({"type": kind} if kind else True), ["everything but type"]
        written = rewrite(schema, strict, self._complaint, structure_only=level > 0)
        return written.schema, list(written.unenforced)

    def _complaint(self, schema: Schema) -> str:
        key = _one(json_entry(schema))
        if key not in self._complaints:
            self._complaints[key] = llguidance.LLMatcher(
                self._tokenizer, key, log_level=0, limits=LIMITS
            ).get_error()
        return self._complaints[key]


def _whole(options: Options, answer: dict[str, Any] | None, calls: list[str]) -> str:
    """The whole answer: what it may be beside calls, and the calls."""
    if not calls:
        assert answer is not None
        return _one(answer)
    entries = [] if answer is None else [answer]
    body = " | ".join(calls)
    several = f'body ("\\n{CALL_START}" body)*' if options.parallel_tool_calls else "body"
    if options.tool_choice == "required":
        start, entries = f'"{CALL_START}" {several}', []
    elif entries:
        start = f'@answer | "{CALL_START}" {several}'
    else:
        start = f'TEXT | begin {several}\nbegin[lazy]: TEXT "{CALL_START}"\nTEXT: /(?s:.*)/'
    main = {"name": "main", "lark_grammar": f"start: {start}\nbody: {body}\n"}
    return json.dumps({"grammars": [main, *({"name": "answer", **entry} for entry in entries)]})


def _one(entry: dict[str, Any]) -> str:
    return json.dumps({"grammars": [entry]})


def json_entry(schema: Schema) -> dict[str, Any]:
    """A schema as the library takes it, with the layout of the JSON."""
    known = schema if isinstance(schema, dict) else {} if schema else {"enum": []}
    escapes = {} if _CONTROLS.search(json.dumps(known)) else {"json_allowed_escapes": ESCAPES}
    return {"json_schema": {**known, "x-guidance": {**LAYOUT, **escapes}}}


def _entry(grammar: Grammar) -> dict[str, Any]:
    match grammar:
        case RegexGrammar(pattern=pattern):
            return {"lark_grammar": f"start: /{llguidance.regex_to_lark(pattern, 'dw')}/"}
        case ChoiceGrammar(choices=choices):
            listed = " | ".join(map(json.dumps, choices)).replace("\x7f", "\\u007f")
            return {"lark_grammar": f"start: {listed}"}
        case LarkGrammar(text=text):
            return {"lark_grammar": text}
    raise AssertionError("JSON has a way of its own")


def _causes() -> Iterator[tuple[str, str]]:
    """What the library says → what it means to whoever wrote the grammar."""
    yield r"nsatisfiable", "nothing fits it"
    yield r"NoExtension|nothing fits", "nothing fits it, or what fits has no end"
    yield (
        r"TooComplex|too big|too large|fuel|limit|exceeded|Unable to determine|row has \d+ items",
        "it is too complex to be enforced",
    )
    yield r"[Ll]ookaround|look-around|look-ahead|backreference", "it looks ahead or back"


def explain(complaint: str) -> str:
    """What the library says, on one line, in words about the grammar."""
    said = " ".join(re.split(r"<non-verbose/>|\n *\d+ \| ", complaint)[0].split())
    plain = next((meaning for pattern, meaning in _causes() if re.search(pattern, said)), "")
    detail = re.search(r"[Uu]nsatisfiable schema: ([^.]*)|required property '[^']*' is unsatisfiable", said)
    if plain:
        return f"{plain}: {detail[0][:200]}" if detail else plain
    internal = re.search(r"coerce_one_of|x-guidance|lenient|Unimplemented|NoExtension", said)
    return "it is more than can be enforced here" if internal or not said else said[:300]
