"""Simulates the routing of conversations to many servers, by the gateway's router and by simpler rules.

python -m benchmarks.routing [--replicas 4 64 1000]
Each server runs requests at a fixed rate and keeps the conversations that it ran last. A request whose
conversation is not there processes its complete prompt. Nothing is measured on a machine: the figures compare
the rules.
"""

import argparse
import hashlib
import heapq
import itertools
import random
import statistics
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from gemma_gateway.routing.router import ServerLoad, rank_servers

TURNS: Final = 6
"""Mean number of turns of a conversation."""
THINKING_S: Final = 20.0
"""Mean time between a response and the next turn."""
PROMPT: Final = 400
"""Mean tokens that a turn adds to the prompt."""
ANSWER: Final = 250
"""Mean tokens of a response."""
PREFILL: Final = 8000.0
"""Tokens/s of a server's prefill."""
DECODE: Final = 60.0
"""Tokens/s of each stream."""
KEPT: Final = 200
"""Conversations in a server's prefix cache."""
LOAD: Final = 0.6
"""Requests in progress per server, in units of ``SLOTS``."""
SLOTS: Final = 16


@dataclass
class Server:
    """A simulated server."""

    name: str
    tokens: int = 0
    requests: int = 0
    cache: OrderedDict[int, None] = field(default_factory=OrderedDict)

    @property
    def load(self) -> ServerLoad:
        """As the router sees it."""
        return ServerLoad(self.name, self.tokens, self.requests)


@dataclass(frozen=True)
class Turn:
    """A request: the conversation, the length of its complete prompt, and of its response."""

    conversation: int
    number: int
    prompt: int
    answer: int


Rule = Callable[[Sequence[Server], Turn], str]


@dataclass
class Result:
    """What a rule achieved."""

    hits: int = 0
    later_turns: int = 0
    peaks: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)


def key_of(conversation: int) -> bytes:
    """The routing key of a conversation."""
    return hashlib.blake2b(str(conversation).encode(), digest_size=16).digest()


def affinity(last: dict[int, str], servers: Sequence[Server], turn: Turn) -> str:
    """The gateway's router."""
    loads = [server.load for server in servers]
    tokens = turn.prompt + turn.answer
    name = rank_servers(loads, key_of(turn.conversation), last.get(turn.conversation), tokens)[0]
    last[turn.conversation] = name
    return name


def plain_hash(servers: Sequence[Server], turn: Turn) -> str:
    """The number of the conversation's hash, modulo the number of servers."""
    return servers[int.from_bytes(key_of(turn.conversation), "little") % len(servers)].name


def round_robin(counter: Iterator[int], servers: Sequence[Server], _: Turn) -> str:
    """One after the other."""
    return servers[next(counter) % len(servers)].name


def least_load(servers: Sequence[Server], _: Turn) -> str:
    """The server with the fewest outstanding tokens."""
    return min(servers, key=lambda server: server.tokens).name


def rules() -> dict[str, Rule]:
    """Fresh rules by name."""
    return {
        "prefix affinity (the gateway)": partial(affinity, {}),
        "plain hashing": plain_hash,
        "round robin": partial(round_robin, itertools.count()),
        "fewest outstanding tokens": least_load,
    }


def conversations(replicas: int, requests: int, seed: int) -> list[tuple[float, Turn]]:
    """Turns with the times at which they arrive, if each response took one second per ``DECODE`` tokens."""
    rng = random.Random(seed)
    mean_s = ANSWER / DECODE
    rate = LOAD * SLOTS * replicas / mean_s / TURNS  # new conversations a second
    turns: list[tuple[float, Turn]] = []
    now = 0.0
    for conversation in range(max(1, requests // TURNS)):
        now += rng.expovariate(rate)
        at, prompt = now, 0
        for number in range(1 + min(40, int(rng.expovariate(1 / (TURNS - 0.5))))):
            prompt += 1 + int(rng.expovariate(1 / PROMPT))
            answer = 1 + int(rng.expovariate(1 / ANSWER))
            turns.append((at, Turn(conversation, number, prompt, answer)))
            at += answer / DECODE + rng.expovariate(1 / THINKING_S)
            prompt += answer
    return sorted(turns, key=lambda pair: pair[0])


def simulate(rule: Rule, replicas: int, turns: Sequence[tuple[float, Turn]]) -> Result:
    """Run the turns on idle servers."""
    servers = {f"server-{number}": Server(f"server-{number}") for number in range(replicas)}
    order, result, ends = list(servers.values()), Result(), list[tuple[float, int, str, int]]()
    for count, (now, turn) in enumerate(turns):
        while ends and ends[0][0] <= now:
            _, _, name, tokens = heapq.heappop(ends)
            servers[name].tokens -= tokens
            servers[name].requests -= 1
        server = servers[rule(order, turn)]
        hit = server.cache.pop(turn.conversation, turn) is None
        server.cache[turn.conversation] = None
        if len(server.cache) > KEPT:
            server.cache.popitem(last=False)
        result.hits += hit
        result.later_turns += turn.number > 0
        new = PROMPT if hit else turn.prompt
        # Streams beyond the slots wait; prefills of the outstanding requests come first.
        wait = max(0, server.requests - SLOTS + 1) * ANSWER / DECODE / SLOTS
        result.first_token.append(wait + new / PREFILL)
        tokens = turn.prompt + turn.answer
        server.tokens += tokens
        server.requests += 1
        heapq.heappush(ends, (now + wait + new / PREFILL + turn.answer / DECODE, count, server.name, tokens))
        if count % 50 == 0 and count > len(turns) // 5:
            mean = statistics.fmean(each.tokens for each in order)
            result.peaks.append(max(each.tokens for each in order) / max(1.0, mean))
    return result


def moved(rule: Rule, before: int, after: int, count: int = 2000) -> float:
    """The share of idle conversations that another server gets when their number changes."""
    first, second = (
        [rule([Server(f"server-{n}") for n in range(number)], Turn(c, 0, 1, 1)) for c in range(count)]
        for number in (before, after)
    )
    return sum(a != b for a, b in zip(first, second, strict=True)) / count


def report(replicas: int, requests: int, seed: int) -> Iterator[str]:
    """The rows of the table for a number of replicas."""
    turns = conversations(replicas, requests, seed)
    for name, rule in rules().items():
        result = simulate(rule, replicas, turns)
        hits = result.hits / max(1, result.later_turns)
        first = statistics.quantiles(result.first_token, n=20)[-1]
        stays = "-"
        if name in ("prefix affinity (the gateway)", "plain hashing"):
            share = [
                moved(_stateless(name), replicas, replicas + change, 400 if replicas > 100 else 2000)
                for change in (1, -1)
            ]
            stays = f"{share[0]:.1%} / {share[1]:.1%}"
        peak = statistics.fmean(result.peaks)
        yield f"| {replicas:,} | {name} | {hits:.1%} | {peak:.2f} | {first * 1000:.0f} | {stays} |"


def _stateless(name: str) -> Rule:
    """The rule for a conversation whose last server is not known."""
    return (lambda servers, turn: affinity({}, servers, turn)) if name.startswith("prefix") else plain_hash


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[4, 64, 1000])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(
        "| replicas | rule | later turns that hit | max ÷ mean load | TTFT p95 ms | moved: joins / leaves |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for replicas in given.replicas:
        for row in report(replicas, given.requests, given.seed):
            print(row, flush=True)


if __name__ == "__main__":
    main()
