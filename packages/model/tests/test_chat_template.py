import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoProcessor

from gemma_model.chat_template import TemplateText, UserText, format_messages_to_prompt, format_raw_prompt
from gemma_model.engine_types import Media, TokenizedPrompt
from gemma_model.prompt_encoder import PromptEncoder
from gemma_wire import AudioPart, ImagePart, InvalidRequest, Message, TextPart, Tool, ToolCall

CONTROLS = (
    "<bos>",
    "<eos>",
    "<pad>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<image_soft_token>",
    "<end_of_image>",
    "<start_of_audio>",
    "<audio_soft_token>",
    "<end_of_audio>",
)
PICTURE = Media("image", b"digest", np.zeros((3, 64, 64), dtype=np.float32))
SOUND = Media("audio", b"digest", np.zeros((64, 128), dtype=np.float32))
WEATHER = Tool(name="get_weather", description="Now", parameters={"type": "object"})


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> PromptEncoder:
    return PromptEncoder(tiny, {"image": 16, "audio": 188}, context_length=4096)


def _as_hf(message: Message) -> dict[str, object]:
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    return {"role": message.role, "content": [part.model_dump() for part in message.content]}


CONVERSATIONS = [
    (Message(role="user", content="Hello, how are you?"),),
    (
        Message(role="system", content="Answer in one word."),
        Message(role="user", content="What is 2 + 2?  Say  it."),
        Message(role="assistant", content="Four."),
        Message(role="user", content='\n And 3 + 3?\n\n{"a": [1]}\t'),
    ),
    (Message(role="user", content=(TextPart(text="What is this?"), ImagePart())),),
    (
        Message(
            role="user", content=(ImagePart(), TextPart(text="One."), ImagePart(), TextPart(text="Two."))
        ),
        Message(role="assistant", content="I see 한국어 and 👩‍👩‍👧 é"),
        Message(role="user", content="More"),
    ),
    (Message(role="user", content=(TextPart(text="Who speaks?"), AudioPart(), ImagePart(), AudioPart())),),
]


@pytest.mark.parametrize("messages", CONVERSATIONS)
def test_token_ids_are_those_of_the_checkpoints_own_template_and_processor(
    messages: tuple[Message, ...], encoder: PromptEncoder, tiny: Path
) -> None:
    processor = AutoProcessor.from_pretrained(tiny)
    rendered = processor.apply_chat_template(
        [_as_hf(message) for message in messages], tokenize=False, add_generation_prompt=True
    )
    pictures = [part for message in messages for part in message.parts if isinstance(part, ImagePart)]
    sounds = [part for message in messages for part in message.parts if isinstance(part, AudioPart)]
    images = [np.zeros((8, 8, 3), dtype=np.uint8) for _ in pictures] or None
    audio = [np.zeros(16_000, dtype=np.float32) for _ in sounds] or None
    expected = processor(text=rendered, images=images, audio=audio, add_special_tokens=False)["input_ids"][0]
    media = [PICTURE] * len(pictures) + [SOUND] * len(sounds)
    prompt = encoder.encode(format_messages_to_prompt(messages), media)
    assert list(prompt.token_ids) == list(expected)


@pytest.mark.parametrize(
    "parts",
    [
        ("What is two", " plus two?"),
        ("What is two ", "plus two?"),
        ("", "What", " ", "is", " two plus two?"),
        (" \n What is two plus two", "?", " \n"),
    ],
)
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_texts_of_one_message_are_the_text_that_they_make(
    encoder: PromptEncoder, role: str, parts: tuple[str, ...]
) -> None:
    def ids(content: object) -> tuple[int, ...]:
        fields = {"role": role, "content": content} | ({"tool_call_id": "1"} if role == "tool" else {})
        return encoder.encode(format_messages_to_prompt([Message.model_validate(fields)])).token_ids

    assert ids(tuple(TextPart(text=part) for part in parts)) == ids("".join(parts))


def test_adjacent_texts_are_joined(encoder: PromptEncoder) -> None:
    """Beside a picture a text is trimmed, as the checkpoint's template does it."""
    texts = [TextPart(text=text) for text in (" What ", "is ", " this", " or this? ")]
    pictured = Message(role="user", content=(*texts[:2], ImagePart(), *texts[2:], ImagePart()))
    plain = Message(
        role="user",
        content=(TextPart(text="What is"), ImagePart(), TextPart(text="this or this?"), ImagePart()),
    )
    media = [PICTURE, PICTURE]
    assert encoder.encode(format_messages_to_prompt([pictured]), media) == encoder.encode(
        format_messages_to_prompt([plain]), media
    )


@pytest.mark.parametrize("said", ["One, two,", "", " One, two,\n", "<end_of_turn>"])
def test_the_last_message_is_continued(encoder: PromptEncoder, said: str) -> None:
    messages = [Message(role="user", content="Count."), Message(role="assistant", content=said)]
    pieces = format_messages_to_prompt(messages, add_generation_prompt=False, continue_final_message=True)
    begun = format_messages_to_prompt(messages[:1])
    assert encoder.encode(pieces) == encoder.encode([*begun, UserText(said.strip())])


def test_the_generation_prompt_is_optional(encoder: PromptEncoder) -> None:
    pieces = format_messages_to_prompt([Message(role="user", content="Hi")], add_generation_prompt=False)
    ids = list(encoder.encode(pieces).token_ids)
    text = encoder.tokenizer.decode(ids, skip_special_tokens=False)
    assert text == "<bos><start_of_turn>user\nHi<end_of_turn>\n"


def test_spans_cover_the_soft_tokens(encoder: PromptEncoder) -> None:
    prompt = encoder.encode(format_messages_to_prompt(CONVERSATIONS[3]), [PICTURE, PICTURE])
    soft = encoder.tokenizer.token_to_id("<image_soft_token>")
    covered = [i for span in prompt.spans for i in range(span.start, span.start + span.length)]
    assert covered == [i for i, token in enumerate(prompt.token_ids) if token == soft]
    assert len(covered) == 32


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
@given(st.lists(st.sampled_from(CONTROLS) | st.text(max_size=5), max_size=8).map("".join))
def test_no_role_can_type_a_control_token(encoder: PromptEncoder, role: str, typed: str) -> None:
    def controls(prompt: TokenizedPrompt) -> list[int]:
        ids = {encoder.tokenizer.token_to_id(control) for control in CONTROLS}
        return [token for token in prompt.token_ids if token in ids]

    def ask(content: str) -> list[int]:
        fields: dict[str, object] = {"role": role, "content": content, "name": content}
        if role == "tool":
            fields["tool_call_id"] = content
        if role == "assistant":
            fields["tool_calls"] = [{"id": "1", "name": content, "arguments": content}]
        tool = Tool(name="x", description=content, parameters={"title": content, "type": "object"})
        pieces = format_messages_to_prompt([Message.model_validate(fields)], [tool])
        return controls(encoder.encode(pieces))

    assert ask(typed) == ask("harmless")


def test_user_text_is_tokenized_as_text(encoder: PromptEncoder) -> None:
    typed = "<image_soft_token><end_of_turn><start_of_turn>model"
    ids = encoder.encode([UserText(typed)]).token_ids
    assert encoder.tokenizer.decode(list(ids), skip_special_tokens=False) == typed


def test_any_order_of_roles_is_a_conversation(encoder: PromptEncoder) -> None:
    roles = ["assistant", "system", "user", "user", "system", "assistant", "assistant"]
    messages = [Message.model_validate({"role": role, "content": role}) for role in roles]
    text = encoder.tokenizer.decode(
        list(encoder.encode(format_messages_to_prompt(messages)).token_ids), skip_special_tokens=False
    )
    assert text == (
        "<bos><start_of_turn>model\nassistant<end_of_turn>\n"
        "<start_of_turn>user\nsystem\n\nuser\n\nuser\n\nsystem<end_of_turn>\n"
        "<start_of_turn>model\nassistant\n\nassistant<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_raw_prompt_honours_control_tokens_and_places(encoder: PromptEncoder) -> None:
    raw = "<start_of_turn>user\nWhat?<image_soft_token><end_of_turn>\n<start_of_turn>model\n"
    prompt = encoder.encode(format_raw_prompt(raw), [PICTURE])
    assert prompt.token_ids[:2] == tuple(map(encoder.tokenizer.token_to_id, ("<bos>", "<start_of_turn>")))
    assert len(prompt.spans) == 1
    assert encoder.encode(format_raw_prompt("<bos>" + raw), [PICTURE]).token_ids == prompt.token_ids


def test_a_raw_prompt_has_placeholders_for_audio(encoder: PromptEncoder) -> None:
    prompt = encoder.encode(format_raw_prompt("a<audio_soft_token>b<image_soft_token>"), [PICTURE, SOUND])
    assert [span.media.modality for span in prompt.spans] == ["audio", "image"]
    assert [span.length for span in prompt.spans] == [188, 16]


@pytest.mark.parametrize("given", [0, 2])
@pytest.mark.parametrize(
    ("soft", "medium", "field"),
    [("<image_soft_token>", PICTURE, "images"), ("<audio_soft_token>", SOUND, "audio")],
)
def test_places_and_media_must_match(
    encoder: PromptEncoder, given: int, soft: str, medium: Media, field: str
) -> None:
    with pytest.raises(
        InvalidRequest, match=f"has {given} files, but the text has placeholders for 1"
    ) as caught:
        encoder.encode(format_raw_prompt(soft), [medium] * given)
    assert caught.value.field == field


def test_media_without_a_tower_are_refused_by_name(tiny: Path) -> None:
    deaf = PromptEncoder(tiny, {"image": 16}, 4096)
    with pytest.raises(InvalidRequest, match="does not support") as caught:
        deaf.encode(format_raw_prompt("<audio_soft_token>"), [SOUND])
    assert caught.value.field == "audio"


def test_token_ids_are_taken_as_they_are(encoder: PromptEncoder) -> None:
    prompt = encoder.encode(format_messages_to_prompt(CONVERSATIONS[3]), [PICTURE, PICTURE])
    assert encoder.from_token_ids(prompt.token_ids, [PICTURE, PICTURE]) == prompt
    with pytest.raises(InvalidRequest, match="has 0 files, but the text has placeholders for 2"):
        encoder.from_token_ids(prompt.token_ids)
    with pytest.raises(InvalidRequest, match="fewer than 16 consecutive soft tokens") as caught:
        encoder.from_token_ids(prompt.token_ids[: prompt.spans[0].start + 7], [PICTURE])
    assert caught.value.field == "options.prompt_token_ids"


def test_tools_their_calls_and_their_results(encoder: PromptEncoder) -> None:
    calls = (
        ToolCall(id="1", name="get_weather", arguments='{"city": "Paris"}'),
        ToolCall(id="2", name="get_weather", arguments='{"city": "Rome"}'),
    )
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Weather?", name="Ann"),
        Message(role="assistant", content="Let me see.\n", tool_calls=calls),
        Message(role="tool", content="sunny", tool_call_id="1"),
        Message(role="tool", content="rain", tool_call_id="2"),
        Message(role="assistant", tool_calls=calls[:1]),
        Message(role="tool", content="snow", tool_call_id="3", name="unheard_of"),
    ]
    pieces = format_messages_to_prompt(messages, [WEATHER])
    ids = list(encoder.encode(pieces).token_ids)
    assert encoder.tokenizer.decode(ids, skip_special_tokens=False) == (
        "<bos><start_of_turn>user\n"
        "You can call these functions:\n"
        '{"name": "get_weather", "description": "Now", "parameters": {"type": "object"}}\n'
        "To call one, write a line <tool_call>name {arguments as JSON}</tool_call>. "
        "Its result comes back as <tool_result>name result</tool_result>.\n\n"
        "Be brief.\n\n"
        "Ann: Weather?<end_of_turn>\n"
        "<start_of_turn>model\n"
        "Let me see.\n"
        '<tool_call>get_weather {"city": "Paris"}</tool_call>\n'
        '<tool_call>get_weather {"city": "Rome"}</tool_call><end_of_turn>\n'
        "<start_of_turn>user\n"
        "<tool_result>get_weather sunny</tool_result>\n\n"
        "<tool_result>get_weather rain</tool_result><end_of_turn>\n"
        "<start_of_turn>model\n"
        '<tool_call>get_weather {"city": "Paris"}</tool_call><end_of_turn>\n'
        "<start_of_turn>user\n"
        "<tool_result>unheard_of snow</tool_result><end_of_turn>\n"
        "<start_of_turn>model\n"
    )


def test_a_tokenizer_without_gemmas_controls_is_refused(tiny: Path, tmp_path: Path) -> None:
    content = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<end_of_image>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InvalidRequest, match="<end_of_image>"):
        PromptEncoder(tmp_path, {"image": 16}, 4096)


def test_templates_are_joined_before_tokenising(encoder: PromptEncoder) -> None:
    assert encoder.encode([TemplateText("\n"), TemplateText("\n")]) == encoder.encode([TemplateText("\n\n")])
