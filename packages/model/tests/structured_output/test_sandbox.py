import json
from typing import Any

import pytest

from gemma_model.structured_output.grammar_builder import byte_tokenizer, dry_run, explain
from gemma_model.structured_output.sandbox import Sandbox


def _json(schema: object) -> str:
    return json.dumps({"grammars": [{"json_schema": schema}]})


def _lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def _run(child: Sandbox, grammar: dict[str, Any], level: int = 0) -> Any:
    return child.run({"options": {"grammar": grammar}, "level": level})


PLAIN = {"type": "json", "json_schema": {"type": "object"}, "strict": True}
CHAIN = "start: a0\n" + "".join(f'a{i}: a{i + 1} | "x"\n' for i in range(20_000)) + 'a20000: "y"\n'
HOSTILE: dict[str, Any] = {
    "a product of patterns": {
        "type": "json",
        "json_schema": {"type": "string", "allOf": [{"pattern": f"a.{{{i}}}b"} for i in range(10, 40)]},
        "strict": True,
    },
    "a large multiple": {
        "type": "json",
        "json_schema": {"type": "integer", "multipleOf": 999_983},
        "strict": True,
    },
    "a chain that overflows the stack": {"type": "lark", "text": CHAIN},
}


@pytest.fixture(scope="module")
def child():  # type: ignore[no-untyped-def]
    child = Sandbox(cpu_seconds=1)
    yield child
    child.close()


@pytest.mark.parametrize("grammar", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_grammar_that_hangs_or_crashes_is_refused_and_the_next_one_compiled(
    child: Sandbox, grammar: Any
) -> None:
    assert _run(child, grammar) is None
    assert _run(child, PLAIN)["grammar"]


def test_a_validation_that_hangs_is_killed(child: Sandbox) -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    assert child.run({"schema": schema, "instance": '"aaa"'}) == {"valid": True}
    assert child.run({"schema": schema, "instance": json.dumps("a" * 60 + "!")}) is None
    assert child.run({"schema": schema, "instance": '"b"'}) == {"valid": False}


def test_a_child_that_was_killed_is_replaced(child: Sandbox) -> None:
    assert _run(child, PLAIN)
    assert child._child is not None
    child._child.kill()
    _run(child, PLAIN)
    assert _run(child, PLAIN)


def test_close_ends_the_child_process() -> None:
    child = Sandbox()
    _run(child, PLAIN)
    process = child._child
    child.close()
    assert process is not None
    assert process.poll() is not None
    child.close()


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (_json({"type": "object", "properties": {"a": {"type": "string"}}}), ""),
        (_json({"enum": []}), "no output is valid for it"),
        (_lark("start: <start_of_turn>"), "token"),
        (_lark("start: start"), "no finite output"),
        (_lark("start: ("), "("),
    ],
)
def test_errors_give_the_reason(grammar: str, reason: str) -> None:
    error = dry_run(grammar, byte_tokenizer())
    message = explain(error) if error else ""
    assert reason in message
    assert bool(reason) == bool(message)
