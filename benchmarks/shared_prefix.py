"""The time to the first token of prompts that begin alike, on our server and on others.

python -m benchmarks.shared_prefix --serve FOLDER --peer llama=http://127.0.0.1:9002
"""

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import openai
from benchmarks.peers import OURS
from benchmarks.stack import serving
from benchmarks.still import Still

from gemma_launcher.tools import api_client
from gemma_launcher.tools.bench import prompts
from gemma_launcher.tools.bench.token_counter import token_counter

Messages = list[dict[str, str]]
SYSTEM, QUESTION, NEW, TURNS, TOGETHER = 2000, 64, 32, 4, 16


@dataclass
class Response:
    """Seconds to the first token; tokens of the prompt, and how many of them were cached; the text."""

    first_s: float
    prompt_tokens: int = 0
    cached_tokens: int = 0
    text: str = ""


@dataclass
class Scenario:
    """One server's responses, by the name of the case."""

    client: openai.AsyncOpenAI
    model: str
    cases: dict[str, list[Response]] = field(default_factory=dict)

    async def ask(self, case: str, messages: Messages) -> Response:
        """Stream a response, and keep it under the name of the case."""
        response = await self._stream(messages)
        self.cases.setdefault(case, []).append(response)
        return response

    async def _stream(self, messages: Messages) -> Response:
        began, given = time.perf_counter(), Response(0.0)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": NEW,
            "temperature": 0,
            "stream_options": {"include_usage": True},
            "extra_body": {"ignore_eos": True},
        }
        stream = await self.client.chat.completions.create(**body, stream=True)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                given.first_s = given.first_s or time.perf_counter() - began
                given.text += chunk.choices[0].delta.content
            if chunk.usage is not None:
                details = chunk.usage.prompt_tokens_details
                given.prompt_tokens = chunk.usage.prompt_tokens
                given.cached_tokens = (details and details.cached_tokens) or 0
        given.first_s = given.first_s or time.perf_counter() - began
        return given

    async def run(self, systems: Sequence[str], questions: Sequence[str]) -> None:
        """All cases once. The texts are new to the server."""
        begin = [{"role": "system", "content": systems[0]}]
        first = [*begin, _user(questions[0])]
        await self.ask("first", first)
        await self.ask("the same again", first)
        await self.ask("another question", [*begin, _user(questions[1])])
        messages: Messages = [_user(systems[1] + questions[2])]
        for turn in range(TURNS):
            said = await self.ask(f"turn {turn + 1}", messages)
            messages += [{"role": "assistant", "content": said.text}, _user(questions[3 + turn])]
        await self.ask("regenerated", messages[:-2])
        await self.ask("last message edited", [*messages[:-3], _user(questions[8])])
        together = (
            [{"role": "system", "content": systems[2]}, _user(text)] for text in questions[-TOGETHER:]
        )
        await asyncio.gather(*(self.ask(f"{TOGETHER} clients at once", each) for each in together))


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def parse() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ours = parser.add_mutually_exclusive_group(required=True)
    ours.add_argument("--serve", metavar="MODEL", help="start our own stack with this checkpoint")
    ours.add_argument("--ours", metavar="URL", help="our own stack, which runs already")
    parser.add_argument("--peer", action="append", default=[], metavar="LABEL=URL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--system-tokens", type=int, default=SYSTEM)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the texts")
    return parser.parse_args()


def main() -> None:
    """Measures, and prints the table."""
    given = parse()
    with contextlib.ExitStack() as held:
        ours = given.ours or held.enter_context(serving(given.serve)).api
        urls = {OURS: ours} | dict(peer.split("=", 1) for peer in given.peer)
        measured = asyncio.run(measure(urls, given))
    print("\n".join(table(measured)))


async def measure(urls: Mapping[str, str], given: argparse.Namespace) -> dict[str, dict[str, list[Response]]]:
    """Label → case → responses. The servers take turns; all others stand still meanwhile."""
    urls = {label: api_client.normalize_base_url(url) for label, url in urls.items()}
    scenarios: dict[str, Scenario] = {}
    for label, url in urls.items():
        with api_client.create_client(url) as client:
            model = api_client.select_model(client, None)
        scenarios[label] = Scenario(api_client.create_async_client(url), model)
        await scenarios[label].ask("warm-up", [_user("Tell me a story.")])
    still = Still({label: url for label, url in urls.items() if label != OURS})
    with still.held():
        for number in range(given.rounds):
            systems, questions = _texts(urls[OURS], scenarios[OURS].model, given, number)
            for label, scenario in scenarios.items():
                with still.but(label):
                    await scenario.run(systems, questions)
    return {label: scenario.cases for label, scenario in scenarios.items()}


def _texts(
    url: str, model: str, given: argparse.Namespace, number: int
) -> tuple[Sequence[str], Sequence[str]]:
    """Texts of a system prompt's length, and of a question's; all servers get the same."""
    seed = given.seed + 1000 * number
    with token_counter(url, model) as count:
        systems = prompts.make_prompts(count, given.system_tokens, 3, seed)
        questions = prompts.make_prompts(count, QUESTION, 9 + TOGETHER, seed + 1)
    return systems.texts, questions.texts


def table(measured: Mapping[str, Mapping[str, Sequence[Response]]]) -> list[str]:
    """Markdown: medians of the seconds to the first token, and the share of the prompts that was cached."""
    labels = list(measured)
    lines = ["| case | " + " | ".join(f"{label}, s | cached" for label in labels) + " |"]
    lines.append("| --- |" + " --- | --- |" * len(labels))
    for case in measured[OURS]:
        cells = []
        for label in labels:
            some = measured[label][case]
            first = statistics.median(each.first_s for each in some)
            share = sum(each.cached_tokens for each in some) / max(
                1, sum(each.prompt_tokens for each in some)
            )
            cells.append(f"{first:.3f} | {share:.0%}")
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
