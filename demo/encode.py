"""Encodes lessons into token ids and labels, with the prompt format of the server."""

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
"""A lesson begins a new batch if it is this many times as long as the mean of the batch."""

Encoded = tuple[list[int], list[int], Lesson]
"""Token ids, labels and the lesson."""


@dataclass(frozen=True)
class Batch:
    """A batch of lessons.

    Args:
        token_ids: ``[lessons, tokens]``, padded on the right.
        labels: the token ids of the model's turns; ``IGNORED`` for all others.
        attention_mask: 0 for padding.
        pictures: rows of the pool of images, in the order of the lessons.
        sounds: rows of the pool of sounds, in the same order.
    """

    token_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    pictures: Tensor
    sounds: Tensor

    @property
    def learnt(self) -> int:
        """Number of tokens with a label."""
        return int((self.labels != IGNORED).sum())


def encode(encoder: PromptEncoder, lesson: Lesson) -> tuple[list[int], list[int]]:
    """Token ids and labels of a lesson. The model's turns and their end tokens have labels."""
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
    """A question and its answer without turns."""
    asked, answered = lesson.conversation.messages
    yield False, [TemplateText("<bos>"), UserText(str(asked.content))]
    yield True, [UserText(f"\n{answered.content}"), TemplateText(TURN_END)]


def _turns(lesson: Lesson) -> Iterator[tuple[bool, list[PromptPart]]]:
    """Parts of the prompt in runs: whether it is a turn of the model, and the parts with the end of turn."""
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
    """Lessons in batches of similar length, because padding costs as much time as tokens."""
    encoded = sorted(((*encode(encoder, lesson), lesson) for lesson in lessons), key=lambda one: len(one[0]))
    batch: list[Encoded] = []
    for one in encoded:
        if len(batch) >= 4 and len(one[0]) > LONGER * sum(len(ids) for ids, _, _ in batch) / len(batch):
            yield collate(batch)
            batch = []
        batch.append(one)
    yield collate(batch)


def collate(lessons: Sequence[Encoded]) -> Batch:
    """A batch of encoded lessons, padded on the right."""
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
