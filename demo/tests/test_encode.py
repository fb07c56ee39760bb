"""The training data has the prompt format of the server."""

import random
from pathlib import Path

import pytest
import torch
from demo import model as nano
from demo.encode import IGNORED, encode, in_batches
from demo.lessons import (
    Lesson,
    chat_lesson,
    colour_lesson,
    look_lesson,
    picture_lesson,
    several_lesson,
    sound_lesson,
)
from demo.pictures import make_scene
from demo.pool import items_of
from demo.sizes import AUDIO_TOKENS, CONTEXT, IMAGE_TOKENS, TEXT_VOCAB
from demo.towers import mirrored, picture_targets

from gemma_model.chat_template import format_messages_to_prompt
from gemma_model.detokenizer import TokenBytes
from gemma_model.prompt_encoder import PromptEncoder

SCENES = [make_scene(random.Random(seed)) for seed in range(40)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    nano.build_tokenizer(seed=1, lessons=1500).save_pretrained(folder)
    return PromptEncoder(folder, {"image": IMAGE_TOKENS, "audio": AUDIO_TOKENS}, CONTEXT)


def lessons(count: int) -> list[Lesson]:
    rng = random.Random(0)
    heard = nano.sounds_of(1, 20)
    made = (
        (
            picture_lesson(rng, SCENES),
            colour_lesson(rng, SCENES),
            look_lesson(rng, SCENES),
            several_lesson(rng, SCENES),
            chat_lesson(rng),
            sound_lesson(rng, heard),
        )
        for _ in range(count)
    )
    return [lesson for each in made for lesson in each]


def test_labels_are_the_answers_and_their_ends(encoder: PromptEncoder) -> None:
    table = TokenBytes(encoder.tokenizer)
    for lesson in lessons(60):
        token_ids, labels = encode(encoder, lesson)
        assert len(token_ids) == len(labels) <= CONTEXT
        said = table.decode([label for label in labels if label != IGNORED])
        for message in lesson.conversation.messages:
            if message.role == "assistant":
                assert str(message.content) in said
        ends = encoder.tokenizer.token_to_id("<end_of_turn>")
        assert ends is not None
        turns = sum(message.role == "assistant" for message in lesson.conversation.messages)
        assert labels.count(ends) == turns


def test_the_prompt_before_the_last_answer_is_the_prompt_of_the_server(encoder: PromptEncoder) -> None:
    for lesson in lessons(60):
        if lesson.raw or lesson.pictures or lesson.sounds:
            continue
        conversation = lesson.conversation
        asked = format_messages_to_prompt(conversation.messages[:-1], conversation.tools)
        prompt = list(encoder.encode(asked).token_ids)
        token_ids, labels = encode(encoder, lesson)
        assert token_ids[: len(prompt)] == prompt
        assert labels[len(prompt) - 1] == IGNORED
        assert labels[len(prompt)] != IGNORED


def test_words_of_the_lessons_are_mostly_single_tokens(encoder: PromptEncoder) -> None:
    assert encoder.tokenizer.get_vocab_size() == TEXT_VOCAB + 32
    for word in (" circle", " triangle", " picture", " seven"):
        assert len(encoder.tokenizer.encode(word, add_special_tokens=False).ids) == 1
    assert len(encoder.tokenizer.encode("123", add_special_tokens=False).ids) == 3


def test_batches_have_all_lessons_and_little_padding(encoder: PromptEncoder) -> None:
    made = lessons(20)
    batches = list(in_batches(encoder, made))
    assert sum(len(batch.token_ids) for batch in batches) == len(made)
    assert sum(len(batch.pictures) for batch in batches) == sum(len(lesson.pictures) for lesson in made)
    assert sum(int(batch.attention_mask.sum()) for batch in batches) > 0.5 * sum(
        batch.token_ids.numel() for batch in batches
    )
    for batch in batches:
        soft = (batch.token_ids == encoder.soft_ids["image"]).sum()
        assert soft == IMAGE_TOKENS * len(batch.pictures)


def test_a_mirrored_picture_has_its_shapes_in_the_mirrored_cells() -> None:
    items = items_of(SCENES)
    pixels = torch.arange(len(SCENES) * 3 * 4 * 4, dtype=torch.float32).reshape(len(SCENES), 3, 4, 4)
    before = picture_targets(items)["object"].reshape(-1, 4, 4)
    seen = set()
    for seed in range(12):
        flipped, moved = mirrored(pixels, items, torch.Generator().manual_seed(seed))
        after = picture_targets(moved)["object"].reshape(-1, 4, 4)
        for flips in ([], [-1], [-2], [-1, -2]):
            if torch.equal(flipped, pixels.flip(flips) if flips else pixels):
                same = after == (before.flip(flips) if flips else before)
                assert same.float().mean() > 0.99  # a centre on the border of two cells may be in either
                seen.add(tuple(flips))
    assert len(seen) == 4
