"""The native and the reference engine, each behind its own Triton, give the same responses."""

from pathlib import Path
from typing import Any

import openai

from stack import Stack, running


def _answers(stack: Stack, picture: str) -> list[Any]:
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": picture}}]
    contents: list[Any] = ["Hello, how are you?", "Once upon a time " * 30, parts]
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as client:
        ask: Any = client.chat.completions.create
        answers = [
            ask(
                model="gemma3n", messages=[{"role": "user", "content": content}], max_tokens=40, temperature=0
            )
            for content in contents
        ]
    return [(a.choices[0].message.content, a.choices[0].finish_reason, a.usage.total_tokens) for a in answers]


def test_both_engines_give_the_same_responses(stack: Stack, tmp_path: Path, red_image: str) -> None:
    with running(tmp_path / "log", GEMMA_ENGINE="reference") as reference:
        expected = _answers(reference, red_image)
    assert _answers(stack, red_image) == expected
    assert len(set(expected)) == 3
