"""Lessons → token ids and what is to be learnt of them, laid out exactly as the server lays out prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from demo.lessons import Lesson
from gemma_model.chat_template import (
    TURN_END,
    TURN_START,
    MediaPlaceholder,
    PromptPart,
    TemplateText,
    UserText,
    format_messages_to_prompt,
)
from gemma_model.engine_types import Media
from gemma_model.prompt_encoder import PromptEncoder

MODEL_SPEAKS = f"{TURN_START}model\n"
IGNORED = -100
LONGER = 1.5
"""A lesson that is so many times as long as the mean of its batch begins another."""

Encoded = tuple[list[int], list[int], Lesson]
"""Token ids, labels, and what they were made of."""


@dataclass(frozen=True)
class Batch:
    """Some lessons side by side.

    Args:
        token_ids: ``[lessons, tokens]``, padded on the right.
        labels: the same where the model speaks, else ``IGNORED``.
        attention_mask: 0 where it is padded.
        pictures: rows of the pool, of all lessons in their order.
        sounds: likewise.
    """

    token_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    pictures: Tensor
    sounds: Tensor

    @property
    def learnt(self) -> int:
        """How many tokens the model is to say."""
        return int((self.labels != IGNORED).sum())


def encode(encoder: PromptEncoder, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Token ids and labels; the model is to learn what it says and where it ends."""
    token_ids: list[int] = []
    labels: list[int] = []
    for spoken, pieces in _raw(lesson) if lesson.raw else _turns(lesson):
        media = [
            Media(p.modality, b"", np.zeros(0, np.float32)) for p in pieces if isinstance(p, MediaPlaceholder)
        ]
        ids = encoder.encode(pieces, media).token_ids
        token_ids += ids
        labels += ids if spoken else [IGNORED] * len(ids)
    return token_ids, labels


def _raw(lesson: Lesson) -> Iterator[tuple[bool, list[PromptPart]]]:
    """A question and its answer as lines of text."""
    asked, answered = lesson.conversation.messages
    yield False, [TemplateText("<bos>"), UserText(str(asked.content))]
    yield True, [UserText(f"\n{answered.content}"), TemplateText(TURN_END)]


def _turns(lesson: Lesson) -> Iterator[tuple[bool, list[PromptPart]]]:
    """The pieces in runs: whether the model speaks, and what is said, its end of turn included."""
    conversation = lesson.conversation
    run: list[PromptPart] = []
    speaks = False
    for piece in format_messages_to_prompt(conversation.messages, conversation.tools)[:-1]:
        if speaks and isinstance(piece, TemplateText) and piece.text == f"{TURN_END}\n":
            yield True, [*run, TemplateText(TURN_END)]
            run, speaks = [TemplateText("\n")], False
            continue
        run.append(piece)
        if isinstance(piece, TemplateText) and piece.text == MODEL_SPEAKS:
            yield False, run
            run, speaks = [], True
    if run and not speaks:
        yield False, run


def in_batches(encoder: PromptEncoder, lessons: Sequence[Lesson]) -> Iterator[Batch]:
    """Lessons in batches of similar length: what is padded costs as much as what is not."""
    encoded = sorted(((*encode(encoder, lesson), lesson) for lesson in lessons), key=lambda one: len(one[0]))
    batch: list[Encoded] = []
    for one in encoded:
        if len(batch) >= 4 and len(one[0]) > LONGER * sum(len(ids) for ids, _, _ in batch) / len(batch):
            yield collate(batch)
            batch = []
        batch.append(one)
    yield collate(batch)


def collate(lessons: Sequence[Encoded]) -> Batch:
    """Encoded lessons side by side."""
    longest = max(len(ids) for ids, _, _ in lessons)
    token_ids = torch.zeros(len(lessons), longest, dtype=torch.long)
    labels = torch.full_like(token_ids, IGNORED)
    mask = torch.zeros_like(token_ids)
    for row, (ids, wanted, _) in enumerate(lessons):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(ids)] = torch.tensor(wanted)
        mask[row, : len(ids)] = 1
    pictures = torch.tensor([row for _, _, lesson in lessons for row in lesson.pictures], dtype=torch.long)
    sounds = torch.tensor([row for _, _, lesson in lessons for row in lesson.sounds], dtype=torch.long)
    return Batch(token_ids, labels, mask, pictures, sounds)
