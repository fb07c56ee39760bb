"""Drafts of what a grammar forces, with the tokenizer of the tests."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from gemma_model.detokenizer import TokenBytes
from gemma_model.engine.drafts.grammar_drafts import ForcingConstraint, GrammarDrafts
from gemma_model.structured_output.compiler import GrammarCompiler
from gemma_wire import JsonGrammar, Options

NAMES = ("name", "city", "member")
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "city": {"type": "string"}, "member": {"type": "boolean"}},
    "required": list(NAMES),
    "additionalProperties": False,
}
STOP = 1


@pytest.fixture(scope="module")
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    folder: Path = request.getfixturevalue("folder_of")("quick")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def constraint(tokenizer: Tokenizer) -> Any:
    table = TokenBytes(tokenizer)
    compiler = GrammarCompiler(tokenizer, table, tokenizer.get_vocab_size(), (), {STOP}, 10**6)
    compiled = compiler.compile(Options(grammar=JsonGrammar(json_schema=SCHEMA)), 100, frozenset({STOP}))
    assert compiled is not None
    yield compiled.constraint
    compiler.close()


def test_names_are_drafted_with_the_spaces_that_the_output_uses(
    tokenizer: Tokenizer, constraint: Any
) -> None:
    """Each step takes what was drafted and is right, and one token more."""
    for spaces in ((", ", ": "), (",", ":")):
        values = {"name": "Ada B", "city": "Rome", "member": True}
        ids = tokenizer.encode(json.dumps(values, separators=spaces), add_special_tokens=False).ids
        state, steps, done, drafted = constraint.fork(), 0, 0, 0
        assert isinstance(state, ForcingConstraint)
        drafts = GrammarDrafts(state)
        while done < len(ids):
            proposed = list(drafts.propose(16).token_ids)
            right = 0
            while done + right < len(ids) - 1 and proposed[right : right + 1] == [ids[done + right]]:
                right += 1
            drafted += len(proposed)
            for token in ids[done : done + right + 1]:
                state.advance(token)
                drafts.append(token)
            done, steps = done + right + 1, steps + 1
        assert steps < 0.6 * len(ids)
        assert len(ids) - steps > 0.8 * drafted, "few drafts are wrong"


def test_a_proposal_changes_nothing(tokenizer: Tokenizer, constraint: Any) -> None:
    state = constraint.fork()
    drafts = GrammarDrafts(state)
    first = list(drafts.propose(16).token_ids)
    assert first == list(drafts.propose(16).token_ids)
    assert tokenizer.decode(first) == '{"name":'
    assert list(drafts.propose(2).token_ids) == first[:2]


def test_free_text_and_the_end_are_not_drafted(tokenizer: Tokenizer, constraint: Any) -> None:
    state = constraint.fork()
    drafts = GrammarDrafts(state)
    text = '{"name":"Ada","city":"R","member":true}'
    for place, token in enumerate(tokenizer.encode(text, add_special_tokens=False).ids):
        state.advance(token)
        drafts.append(token)
        if place == 6:
            assert not drafts.propose(16).token_ids
    assert not drafts.propose(16).token_ids
