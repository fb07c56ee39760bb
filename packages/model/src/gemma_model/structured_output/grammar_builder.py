"""Builds the llguidance grammar of a request; runs in the sandbox, where it can be killed.

A JSON schema is rewritten (``json_schema``), compiled, and tested for some steps. If it cannot be enforced
and is not strict, fewer of its keywords are enforced, in ``LEVELS`` steps; the others are reported.
"""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import llguidance
import numpy as np

from gemma_model.json_schema.document import Schema
from gemma_model.json_schema.errors import SchemaError
from gemma_model.json_schema.rewrite import rewrite
from gemma_model.tool_calls import CALL_END, CALL_START, CUSTOM_END, parameters_schema
from gemma_wire import (
    ChoiceGrammar,
    CustomInput,
    Grammar,
    InvalidRequest,
    JsonGrammar,
    LarkGrammar,
    Options,
    RegexGrammar,
)

STEPS = 64
"""Length of the random output that tests a grammar: some small grammars are expensive to parse."""
LIMITS = llguidance.LLParserLimits(
    max_lexer_states=50_000,  # 2 kB for each state
    initial_lexer_fuel=20_000_000,  # the time limit is the effective one
    verbose_errors=False,
)
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
ESCAPES = 'nrbtf\\"'
"""Allowed escapes. Without ``u``, because the library treats an escaped property name as another name."""
LEVELS = 3
"""Number of levels of enforcement: 0 the complete schema, 1 only its structure, 2 only its type."""
_CONTROLS = re.compile(r"\\u00[01][0-9a-f]|\x7f")


@dataclass
class BuiltGrammar:
    """A grammar that can be enforced.

    Args:
        grammar: of the complete output, in llguidance's format.
        unenforced: keywords of the request's schemas that it does not enforce.
        to_validate: schemas to validate a finished output against: the schema of the grammar under ``""``,
            the parameters of a tool under its name.
    """

    grammar: str = ""
    unenforced: dict[str, str] = field(default_factory=dict)
    to_validate: dict[str, Any] = field(default_factory=dict)


def byte_tokenizer() -> llguidance.LLTokenizer:
    """A tokenizer with a token for each byte, and an end token."""

    class Bytes:
        eos_token_id, bos_token_id, special_token_ids = 256, None, (256,)
        tokens = (*(bytes([byte]) for byte in range(256)), b"<eos>")

        def __call__(self, text: bytes) -> list[int]:
            return list(text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))


def dry_run(grammar: str, tokenizer: llguidance.LLTokenizer) -> str:
    """Compile a grammar and generate a short random output. Returns the error, or an empty string."""
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    choose = random.Random(0).choice
    for _ in range(STEPS):
        if matcher.is_error() or matcher.is_stopped():
            break
        words = np.frombuffer(matcher.compute_bitmask(), "<i4")
        allowed = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
        if not len(allowed):
            return "no output is valid for it"
        matcher.consume_token(choose(allowed.tolist()))
    return matcher.get_error()


class GrammarBuilder:
    """Builds grammars. A hostile request can make it hang or crash: run it in the sandbox.

    Args:
        level: the first of ``LEVELS`` that is tried for a schema that is not strict.
    """

    def __init__(self, level: int = 0) -> None:
        self.level = level
        self._tokenizer = byte_tokenizer()
        self._grammar_errors: dict[str, str] = {}

    def build(self, options: Options) -> BuiltGrammar:
        """The grammar of a request with a grammar or tools.

        Raises:
            InvalidRequest: names the grammar or tool that cannot be enforced, and the reason.
        """
        built = BuiltGrammar()
        calls = [
            self._call(i, options, built)
            if tool.custom is None
            else self._custom_call(i, tool.name, tool.custom)
            for i, tool in enumerate(options.tools)
        ]
        document = None if options.grammar is None else self._document(options.grammar, built)
        built.grammar = _output_grammar(options, document, calls)
        if problem := dry_run(built.grammar, self._tokenizer):
            field_ = "options.grammar" if document else "options.tools"
            raise InvalidRequest(f"is not supported: {explain(problem)}", field_)
        return built

    def _document(self, grammar: Grammar, built: BuiltGrammar) -> dict[str, Any]:
        if isinstance(grammar, JsonGrammar):
            entry = self._schema(grammar.json_schema, grammar.strict, built, "options.grammar")
            if built.unenforced:
                built.to_validate[""] = grammar.json_schema
            return entry
        self._check(grammar, "options.grammar")
        return _entry(grammar)

    def _custom_call(self, i: int, name: str, given: CustomInput) -> "_Call":
        """A regular expression and the end of the call are one lexeme, which ends as early as possible."""
        field_ = f"options.tools[{i}].custom.definition"
        head, end = json.dumps(f"{name}\n"), json.dumps(CUSTOM_END)
        if given.syntax == "lark":
            self._check(LarkGrammar(text=given.definition), field_)
            return _Call(f"{head} @custom{i} {end}", {"lark_grammar": given.definition}, f"{head} @custom{i}")
        pattern = "(?s:.*)"
        if given.syntax == "regex":
            self._check(RegexGrammar(pattern=given.definition), field_)
            pattern = llguidance.regex_to_lark(given.definition, "dw")
        return _Call(f"{head} /{pattern}/ {end}", is_lazy=True)

    def _check(self, grammar: Grammar, field_: str) -> None:
        """Checks a grammar that is not JSON's.

        Raises:
            InvalidRequest: it cannot be enforced.
        """
        if problem := dry_run(_single(_entry(grammar)), self._tokenizer):
            raise InvalidRequest(f"is not supported: {explain(problem)}", field_)

    def _call(self, i: int, options: Options, built: BuiltGrammar) -> "_Call":
        tool, name = options.tools[i], f"options.tools[{i}].parameters"
        before = set(built.unenforced)
        schema = parameters_schema(tool)
        entry = self._schema(schema, tool.strict, built, name)["json_schema"]
        if set(built.unenforced) - before or (not tool.strict and self.level):
            built.to_validate[tool.name] = tool.parameters or {}
        return _Call(f'"{tool.name} " %json {json.dumps(entry)} "{CALL_END}"')

    def _schema(self, schema: Schema, strict: bool, built: BuiltGrammar, name: str) -> dict[str, Any]:
        """A grammar entry for a schema: complete if it is strict, otherwise the first level that compiles."""
        problem = ""
        for level in (0,) if strict else range(self.level, LEVELS):
            try:
                enforced, left_out = self._at_level(schema, strict, level)
            except SchemaError as error:
                raise InvalidRequest(f"is not supported: {error}", name) from None
            except RecursionError:
                raise InvalidRequest("is not supported: it is nested too deeply", name) from None
            entry = json_entry(enforced)
            problem = dry_run(_single(entry), self._tokenizer)
            if not problem:
                built.unenforced |= {keyword: f"{name}: {keyword}" for keyword in left_out}
                return entry
            if "nsatisfiable" in problem and not left_out:
                break
        raise InvalidRequest(f"is not supported: {explain(problem)}", name)

    def _at_level(self, schema: Schema, strict: bool, level: int) -> tuple[Schema, list[str]]:
        if level == LEVELS - 1:
            types = schema.get("type") if isinstance(schema, dict) else None
            return ({"type": types} if types else True), ["everything but type"]
        rewritten = rewrite(schema, strict, self._grammar_error, structure_only=level > 0)
        return rewritten.schema, list(rewritten.unenforced)

    def _grammar_error(self, schema: Schema) -> str:
        key = _single(json_entry(schema))
        if key not in self._grammar_errors:
            self._grammar_errors[key] = llguidance.LLMatcher(
                self._tokenizer, key, log_level=0, limits=LIMITS
            ).get_error()
        return self._grammar_errors[key]


@dataclass(frozen=True)
class _Call:
    """How a call of one tool is written.

    Args:
        rule: the right side of a rule, with the end of the call.
        grammar: which the rule refers to as ``@custom`` and the tool's number.
        without_end: of a call that ends with the output. A grammar may match the end of the call as well, and
            only the end of the output is certain.
        is_lazy: the rule is one lexeme, which ends as early as possible.
    """

    rule: str
    grammar: dict[str, Any] | None = None
    without_end: str = ""
    is_lazy: bool = False


def _output_grammar(options: Options, document: dict[str, Any] | None, calls: list[_Call]) -> str:
    """The grammar of the complete output: text, a document that is valid for the grammar, or tool calls."""
    if not calls:
        assert document is not None
        return _single(document)
    entries = [] if document is None else [document]
    last = " | last" if any(call.without_end for call in calls) else ""
    several = f'(body "\\n{CALL_START}")* (body{last})' if options.parallel_tool_calls else f"(body{last})"
    if options.tool_choice == "required":
        start, entries = f'"{CALL_START}" {several}', []
    elif entries:
        start = f'@answer | "{CALL_START}" {several}'
    else:
        start = f'TEXT | begin {several}\nbegin[lazy]: TEXT "{CALL_START}"\nTEXT: /(?s:.*)/'
    main = {"name": "main", "lark_grammar": f"start: {start}\n{_call_rules(calls)}\n"}
    grammars = [{"name": f"custom{i}", **call.grammar} for i, call in enumerate(calls) if call.grammar]
    return json.dumps({"grammars": [main, *({"name": "answer", **entry} for entry in entries), *grammars]})


def _call_rules(calls: list[_Call]) -> str:
    rules = [f"body: {' | '.join(f'call{i}' for i in range(len(calls)))}"]
    if last := [call.without_end for call in calls if call.without_end]:
        rules.append(f"last: {' | '.join(last)}")
    rules += [f"call{i}{'[lazy]' if call.is_lazy else ''}: {call.rule}" for i, call in enumerate(calls)]
    return "\n".join(rules)


def _single(entry: dict[str, Any]) -> str:
    return json.dumps({"grammars": [entry]})


def json_entry(schema: Schema) -> dict[str, Any]:
    """The grammar entry of llguidance for a schema, with the layout and the escapes of the JSON."""
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
    raise AssertionError("JSON is handled elsewhere")


def _causes() -> Iterator[tuple[str, str]]:
    """Patterns of llguidance's error messages, and the message for the client."""
    yield r"nsatisfiable", "no output is valid for it"
    yield r"NoExtension|nothing fits", "no finite output is valid for it"
    yield (
        r"TooComplex|too big|too large|fuel|limit|exceeded|Unable to determine|row has \d+ items",
        "it is too complex to be enforced",
    )
    yield r"[Ll]ookaround|look-around|look-ahead|backreference", "it has lookahead or lookbehind"


def explain(problem: str) -> str:
    """An error message of llguidance as a message for the client, on one line."""
    message = " ".join(re.split(r"<non-verbose/>|\n *\d+ \| ", problem)[0].split())
    plain = next((meaning for pattern, meaning in _causes() if re.search(pattern, message)), "")
    detail = re.search(
        r"[Uu]nsatisfiable schema: ([^.]*)|required property '[^']*' is unsatisfiable", message
    )
    if plain:
        return f"{plain}: {detail[0][:200]}" if detail else plain
    internal = re.search(r"coerce_one_of|x-guidance|lenient|Unimplemented|NoExtension", message)
    return "it cannot be enforced" if internal or not message else message[:300]
