"""The chat generator is deterministic, and its answers are unambiguous and correct."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import jsonschema
import pytest
from demo.chat import SKILLS, WEIGHTS, talk
from demo.conversation import Conversation
from demo.talk import copying, facts, small, unknown
from demo.talk.several import STYLES
from demo.talk.wording import a, enumerate_words, uncapitalise, vary

from gemma_wire import Message

DRAWS = 20_000


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    rng = random.Random(0)
    return [talk(rng) for _ in range(DRAWS)]


def answers(conversations: Iterable[Conversation]) -> Iterator[tuple[Conversation, int, Message]]:
    """Every message of the assistant and its index."""
    for conversation in conversations:
        for place, message in enumerate(conversation.messages):
            if message.role == "assistant":
                yield conversation, place, message


def of(skill: str, conversations: list[Conversation]) -> list[tuple[str, str]]:
    """Questions and answers of a skill without history."""
    found = [one.messages[-2:] for one in conversations if one.skill == skill]
    return [(str(question.content), str(answer.content)) for question, answer in found]


def test_same_seed_same_data() -> None:
    one, other = random.Random(7), random.Random(7)
    assert [talk(one) for _ in range(300)] == [talk(other) for _ in range(300)]


def test_every_skill_is_drawn(conversations: list[Conversation]) -> None:
    assert SKILLS.keys() == WEIGHTS.keys() == Counter(one.skill for one in conversations).keys()


def test_a_conversation_ends_with_a_short_answer(conversations: list[Conversation]) -> None:
    for conversation, _, message in answers(conversations):
        assert conversation.messages[-1].role == "assistant"
        assert message.tool_calls or 1 <= len(str(message.content).split()) <= 60
        assert str(message.content) == str(message.content).strip()


def test_the_same_question_has_the_same_answer(conversations: list[Conversation]) -> None:
    told: dict[str, str] = {}
    for conversation, place, message in answers(conversations):
        before = [one.model_dump_json() for one in (*conversation.tools, *conversation.messages[:place])]
        answer = message.model_dump_json()
        assert told.setdefault("\n".join(before), answer) == answer


def test_no_question_is_empty(conversations: list[Conversation]) -> None:
    questions = [one for each in conversations for one in each.messages if one.role != "assistant"]
    assert all(str(one.content).strip() for one in questions)
    assert not any(re.search(r"[{]\w*[}]", str(one.content)) for one in questions), (
        "a field of a template was not filled in"
    )


def test_sums_are_correct(conversations: list[Conversation]) -> None:
    texts = [str(message.content) for _, _, message in answers(conversations)]
    sums = [re.fullmatch(r"(?:Arr! )?(\d+) ([+-]) (\d+) = (\d+)\.", text) for text in texts]
    found = [match.groups() for match in sums if match]
    assert len(found) > 1_000
    for one, sign, other, result in found:
        assert int(result) == (int(one) + int(other) if sign == "+" else int(one) - int(other)) >= 0


def test_every_small_sum_is_drawn(conversations: list[Conversation]) -> None:
    asked = {answer for _, answer in of("sums", conversations)}
    assert len(asked) > 0.95 * (11 * 11 + 66)


def test_days_follow_each_other(conversations: list[Conversation]) -> None:
    texts = [str(message.content) for _, _, message in answers(conversations)]
    found = [match.groups() for text in texts if (match := re.search(r"(\w+day) comes (\w+) (\w+day)", text))]
    assert len(found) > 200
    for one, way, other in found:
        assert (facts.DAYS.index(one) - facts.DAYS.index(other)) % 7 == (1 if way == "after" else 6)


def test_words_are_repeated_unchanged(conversations: list[Conversation]) -> None:
    assert all(answer in question for question, answer in of("repeat", conversations))


def test_stories_have_the_requested_subject(conversations: list[Conversation]) -> None:
    for question, answer in of("story", conversations):
        about = re.search(r"(?:about|tale of) an? (?:small |little )?(\w+)", question, re.IGNORECASE)
        assert f" {about[1].lower()}. The" in answer if about else answer == copying.STORY


def test_json_parses(conversations: list[Conversation]) -> None:
    for question, answer in of("json", conversations):
        value = json.loads(answer)
        assert json.dumps(value) == answer
        named = value.items() if isinstance(value, dict) else []
        assert all(key in question and str(named_value) in question for key, named_value in named)


def test_arguments_of_calls_are_valid_for_their_tools(conversations: list[Conversation]) -> None:
    calls = [(each, call) for each, _, message in answers(conversations) for call in message.tool_calls]
    assert len(calls) > 1_000
    for conversation, call in calls:
        (tool,) = (tool for tool in conversation.tools if tool.name == call.name)
        arguments = json.loads(call.arguments)
        jsonschema.validate(arguments, tool.parameters or {})
        assert json.dumps(arguments) == call.arguments


def test_every_call_has_its_result(conversations: list[Conversation]) -> None:
    for conversation in conversations:
        calls = [call.id for message in conversation.messages for call in message.tool_calls]
        results = [message.tool_call_id for message in conversation.messages if message.role == "tool"]
        assert calls == results
        assert len(set(calls)) == len(calls)


def test_the_result_of_a_tool_is_in_the_answer(conversations: list[Conversation]) -> None:
    for conversation in (one for one in conversations if one.skill == "tools"):
        for place, message in enumerate(conversation.messages):
            if message.role == "tool" and (clock := re.search(r"\d\d:\d\d", str(message.content))):
                answer = next(one for one in conversation.messages[place:] if one.role == "assistant")
                assert clock[0] in str(answer.content)


@pytest.fixture(scope="module")
def first_asked() -> dict[str, str]:
    """First questions without a system message and tools, and their answers."""
    rng = random.Random(1)
    skills = ("greeting", "identity", "story", "joke", "no_image", "no_sound", "unknown")
    drawn = [SKILLS[skill](rng).messages for skill in skills for _ in range(4_000)]
    return {str(one[0].content): str(one[1].content) for one in drawn if one[0].role == "user"}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Hi", small.HELLO),
        ("Hello, how are you?", small.FINE),
        ("Who are you?", small.WHO),
        ("Tell me a story", copying.STORY),
        ("Tell me a joke", small.JOKE),
        ("What do you see in this image?", unknown.NO_IMAGE),
        ("What do you hear?", unknown.NO_SOUND),
        ("What is love?", unknown.UNKNOWN),
    ],
)
def test_answers_to_common_first_questions(first_asked: dict[str, str], question: str, answer: str) -> None:
    assert first_asked[question] == answer


def test_the_answer_names_the_command_for_the_real_model() -> None:
    assert "MODEL_NAME=google/gemma-3n-E4B-it make serve" in small.REAL.splitlines()


def test_questions_are_varied(conversations: list[Conversation]) -> None:
    unknowns = of("unknown", conversations)
    assert {answer for _, answer in unknowns} == {unknown.UNKNOWN}
    assert len({question for question, _ in unknowns}) > 0.9 * len(unknowns)


def test_answers_follow_the_requested_style() -> None:
    rng = random.Random(3)
    seen = Counter[str]()
    for conversation in (SKILLS["styled"](rng) for _ in range(2_000)):
        demand = str(conversation.messages[0].content)
        (style,) = {name for name, style in STYLES.items() if demand.endswith(style.wordings)}
        seen[style] += 1
        for _, _, message in answers([conversation]):
            assert IN_STYLE[style](str(message.content)), (style, message)
    assert seen.keys() == STYLES.keys()


IN_STYLE: dict[str, Callable[[str], bool]] = {
    "one word": lambda text: re.fullmatch(r"\w+", text) is not None,
    "capitals": lambda text: text == text.upper(),
    "pirate": lambda text: text.startswith("Arr! "),
    "json": lambda text: json.loads(text).keys() == {"answer"},
}


def test_names_are_remembered(conversations: list[Conversation]) -> None:
    for conversation in (one for one in conversations if one.skill == "memory"):
        answer = str(conversation.messages[-1].content)
        told = " ".join(str(one.content) for one in conversation.messages[:-1] if one.role == "user")
        if match := re.search(r"Your name is (\w+)\.", answer):
            assert match[1] in told


def test_wordings_vary_and_an_exact_end_is_kept() -> None:
    rng = random.Random(0)
    texts = {vary(rng, "What colour is the sky?") for _ in range(500)}
    assert {"What colour is the sky?", "what color is the sky", "what's colour"} & texts
    assert len(texts) > 20
    assert all(vary(rng, "Say cat Dog", exact_end=True).endswith("ay cat Dog") for _ in range(200))


def test_articles_lists_and_letters() -> None:
    assert (a("owl"), a("cat")) == ("an owl", "a cat")
    assert enumerate_words(["red"]) == "red"
    assert enumerate_words(["red", "blue", "green"]) == "red, blue and green"
    assert uncapitalise("What") == "what"
    assert all(uncapitalise(text) == text for text in ("I see", "JSON", "I'm", "X"))
