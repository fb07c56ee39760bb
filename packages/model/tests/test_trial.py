import json

import pytest

from gemma_model.trial import Trial, byte_tokenizer, try_out


def _json(schema: object) -> str:
    return json.dumps({"grammars": [{"json_schema": schema}]})


def _lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


TOO_COSTLY = "it takes more than 1 s, or too much memory, to prepare"
CHAIN = "start: a0\n" + "".join(f'a{i}: a{i + 1} | "x"\n' for i in range(20_000)) + 'a20000: "y"\n'
HOSTILE = {
    "a product of patterns": _json({"allOf": [{"pattern": f"a.{{{i}}}b"} for i in range(10, 40)]}),
    "a large multiple": _json({"type": "integer", "multipleOf": 999_983}),
    "a chain that overflows the stack": _lark(CHAIN),
}


@pytest.fixture(scope="module")
def child():  # type: ignore[no-untyped-def]
    child = Trial(cpu_seconds=1)
    yield child
    child.close()


@pytest.mark.parametrize("grammar", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_hangs_or_crashes_is_refused_and_the_next_is_tried(child: Trial, grammar: str) -> None:
    assert child.complaint(grammar) == TOO_COSTLY
    assert child.complaint(_json({"type": "object"})) == ""


def test_a_child_that_was_killed_is_replaced(child: Trial) -> None:
    assert child.complaint(_json({})) == ""
    assert child._child is not None
    child._child.kill()
    assert child.complaint(_json({})) in ("", TOO_COSTLY)
    assert child.complaint(_json({})) == ""


def test_nothing_is_left_running() -> None:
    child = Trial()
    child.complaint(_json({}))
    process = child._child
    child.close()
    assert process is not None
    assert process.poll() is not None
    child.close()


@pytest.mark.parametrize(
    ("grammar", "complaint"),
    [
        (_json({"type": "object", "properties": {"a": {"type": "string"}}}), ""),
        (_json({"not": {}}), "not"),
        (_json({"enum": []}), "nsatisfiable"),
        (_lark("start: <start_of_turn>"), "token"),
        (_lark("start: start"), "NoExtension"),
        (_lark("start: ("), "("),
    ],
)
def test_complaints_say_what_is_wrong(grammar: str, complaint: str) -> None:
    said = try_out(grammar, byte_tokenizer())
    assert complaint in said
    assert bool(complaint) == bool(said)
