"""The complete stack in containers, as ``docker compose --profile cpu up`` starts it, and requests to it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from engine import PROJECT, Engine
from stack import eventually

TRITON, API, PLAYGROUND = "triton-cpu", "api", "playground"
SERVICES = (TRITON, API, PLAYGROUND)
START_S = 400
"""The first start compiles the kernels."""

API_URL = "http://127.0.0.1:8080"
PAGE_URL = "http://127.0.0.1:7860"
CHAT = f"{API_URL}/v1/chat/completions"
QUESTION: dict[str, Any] = {
    "model": "gemma3n",
    "max_tokens": 8,
    "messages": [{"role": "user", "content": "Hi"}],
}
LONG = {**QUESTION, "max_tokens": 3000, "ignore_eos": True, "stream": True}


@dataclass(frozen=True)
class Containers:
    """The containers of the project.

    Args:
        engine: where they run.
        files: of Compose, beside ``docker-compose.yml``.
        shell: the shell's variables for Compose.
    """

    engine: Engine
    files: tuple[Path, ...] = ()
    shell: Mapping[str, str] = field(default_factory=dict)

    def compose(self, *arguments: str) -> str:
        """Docker Compose with these files and the profile cpu."""
        files = [part for file in self.files for part in ("--file", str(file))]
        return self.engine.compose(*files, "--profile", "cpu", *arguments, shell=dict(self.shell))

    def up(self, *services: str) -> float:
        """Start the services, or all, and wait until they are healthy; the seconds that it took."""
        began = time.monotonic()
        self.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(START_S), *services)
        return time.monotonic() - began

    def start(self, *services: str) -> None:
        """Start the services without waiting for them."""
        self.compose("up", "--detach", "--no-build", "--no-deps", *services)

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        return self.engine.inspect(container(service))

    def health(self, service: str) -> str:
        """Its state of health; that of a container which does not run is the state itself."""
        state = self.inspect(service)["State"]
        return str(state["Health"]["Status"] if state["Running"] else state["Status"])

    def wait_healthy(self, *services: str, seconds: float = START_S) -> float:
        """Until all are healthy; the seconds that it took."""
        began = time.monotonic()
        for service in services or SERVICES:
            healthy = eventually(lambda name=service: self.health(name) == "healthy", seconds)
            assert healthy, f"{service} is {self.health(service)}\n{self.log(service)}"
        return time.monotonic() - began

    def log(self, service: str) -> str:
        """The end of its log, both streams."""
        return self.compose("logs", "--no-color", "--no-log-prefix", "--tail", "400", service)

    def kill(self, service: str, program: str = "") -> None:
        """SIGKILL to the container's first process, or to the one of this name.

        After ``docker kill`` the engine restarts nothing: it regards that as the operator's decision.
        """
        pid = self._find(service, program) if program else self.inspect(service)["State"]["Pid"]
        self.engine.docker(
            *("run", "--rm", "--pid", "host", "--user", "0", "--network", "none", "--entrypoint", "python3"),
            *("gemma-triton-api", "-c", f"import os; os.kill({pid}, 9)"),
        )

    def _find(self, service: str, program: str) -> int:
        lines = self.engine.docker("top", container(service), "-eo", "pid,args").splitlines()
        found = [int(line.split()[0]) for line in lines[1:] if Path(line.split()[1]).name == program]
        assert found, lines
        return found[0]


def container(service: str) -> str:
    """The name that Compose gives its container."""
    return f"{PROJECT}-{service}-1"


@dataclass
class Load:
    """Clients that ask for one stream after another, and how each ended."""

    outcomes: Counter[str] = field(default_factory=Counter)
    open: set[int] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)

    def client(self, number: int) -> None:
        """One of them."""
        while not self.over.is_set():
            outcome = self._stream(number)
            self.open.discard(number)
            self.outcomes[outcome] += 1
            if outcome != "complete":
                time.sleep(0.5)

    def _stream(self, number: int) -> str:
        try:
            with httpx.stream("POST", CHAT, json=LONG, timeout=60, trust_env=False) as response:
                if response.status_code != 200:
                    waits = "Retry-After" in response.headers
                    return f"{response.status_code}{' with Retry-After' * waits}"
                last = ""
                for line in filter(None, response.iter_lines()):
                    self.open.add(number)
                    if self.over.is_set():
                        return "left"
                    last = line if "error" in line or "[DONE]" not in line else last or line
                return _ending(last)
        except httpx.ConnectError:
            return "no connection"
        except httpx.HTTPError:
            return "broken"


def _ending(last: str) -> str:
    """How a stream ended, by its last event before ``[DONE]``."""
    event = json.loads(last.removeprefix("data: "))
    if "error" in event:
        return "error event"
    choices = event.get("choices") or [{}]
    return "complete" if choices[0].get("finish_reason") else "cut off"


@contextmanager
def load(clients: int = 4) -> Iterator[Load]:
    """So many clients, each with an open stream when the block begins."""
    running = Load()
    threads = [threading.Thread(target=running.client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        assert eventually(lambda: len(running.open) == clients, 60), running.outcomes
        yield running
    finally:
        running.over.set()
        for thread in threads:
            thread.join()


def ask(question: dict[str, Any] = QUESTION) -> tuple[int, httpx.Headers]:
    """One short request: the status, 0 without a connection, and the headers."""
    try:
        response = httpx.post(CHAT, json=question, timeout=120, trust_env=False)
    except httpx.HTTPError:
        return 0, httpx.Headers()
    return response.status_code, response.headers


def answers() -> bool:
    """Whether a short request is answered."""
    return ask()[0] == 200
