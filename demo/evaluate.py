"""Evaluates the demo model at temperature 0 through the complete server: ``make demo-eval``.

An answer is correct if it is exactly the expected text. A tool call is correct if name and arguments are.
"""

import argparse
import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from demo.card import write_card
from demo.exam import Question, exam

AT_ONCE = 8


async def evaluate(base_url: str, number: int, show: int) -> dict[str, tuple[int, int]]:
    """The number of correct answers and of questions, by skill.

    Args:
        base_url: of an OpenAI-compatible server.
        number: of questions, see ``exam``.
        show: maximum number of wrong answers of each skill that are printed.
    """
    client = AsyncOpenAI(base_url=base_url, api_key="none", timeout=300)
    gate = asyncio.Semaphore(AT_ONCE)
    asked = list(exam(number))
    print(f"asking {len(asked):,} questions", flush=True)
    said = await asyncio.gather(*(_ask(client, gate, question) for question in asked))
    results: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for question, answer in zip(asked, said, strict=True):
        right, of = results[question.skill]
        results[question.skill] = (right + (answer == question.answer), of + 1)
        if answer != question.answer and of + 1 - results[question.skill][0] <= show:
            last = json.dumps(question.body["messages"][-1]["content"])[:80]
            print(f"{question.skill}: {last}: {answer!r}, not {question.answer!r}")
    return dict(results)


async def _ask(client: AsyncOpenAI, gate: asyncio.Semaphore, question: Question) -> Any:
    async with gate:
        answer = await client.chat.completions.create(
            model="gemma3n", temperature=0, max_tokens=150, **question.body
        )
    message = answer.choices[0].message
    if message.tool_calls:
        return [[call.function.name, json.loads(call.function.arguments)] for call in message.tool_calls]
    return message.content


@contextmanager
def served(base_url: str | None, checkpoint: Path) -> Iterator[str]:
    """The given base URL, or the base URL of a server that runs the checkpoint and is stopped afterwards."""
    if base_url is not None:
        yield base_url
        return
    from stack import running  # noqa: PLC0415 - a module of the contract tests

    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "log", f"--model={checkpoint}") as stack,
    ):
        yield f"{stack.url}/v1"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.evaluate", description="Exact match by skill.")
    parser.add_argument("--base-url", help="of a server that runs; else one is started for the checkpoint")
    parser.add_argument("--checkpoint", type=Path, default=Path("models/gemma3n-nano"), help="to serve")
    parser.add_argument("--number", type=int, default=100, help="of questions; five times as many pictures")
    parser.add_argument("--show", type=int, default=0, help="so many wrong answers of each skill")
    parser.add_argument("--card", action="store_true", help="put the table into the checkpoint's model card")
    arguments = parser.parse_args()
    with served(arguments.base_url, arguments.checkpoint) as base_url:
        results = asyncio.run(evaluate(base_url, arguments.number, arguments.show))
    for skill, (right, of) in results.items():
        print(f"{skill:32} {right / of:7.1%}  {right}/{of}")
    if arguments.card:
        write_card(arguments.checkpoint, results)


if __name__ == "__main__":
    main()
