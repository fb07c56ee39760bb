"""How much memory our stack takes with a checkpoint while it starts, is idle, and answers requests.

python -m benchmarks.memory FOLDER [--context 8192] [--slots 1] [--prompt 2000]
Figures are sums over all processes. Mapped pages of files are apart: the system can drop them when it needs
the memory, and reads them again. A page that several processes map is counted for each of them.
"""

import argparse
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from benchmarks import soak
from benchmarks.stack import serving

SAMPLE_S = 0.2
IDLE_S = 15.0
"""Long enough for the per-layer table to be read into the page cache."""
TOKENS = 16
"""Of a response."""
FIELDS = {"RssAnon": "own", "RssShmem": "own", "RssFile": "files"}
"""Fields of ``/proc/PID/status`` → what they are counted as."""


@dataclass
class Memory:
    """Bytes of a process tree.

    Args:
        own: memory that the system cannot drop: anonymous and shared.
        files: mapped pages of files.
    """

    own: int = 0
    files: int = 0

    def keep_peak(self, other: "Memory") -> None:
        """The maximum of each part."""
        self.own, self.files = max(self.own, other.own), max(self.files, other.files)


def memory_of_tree(launcher: int) -> Memory:
    """What all processes take now."""
    found = {"own": 0, "files": 0}
    for process in [launcher, *(child.pid for child in psutil.Process(launcher).children(recursive=True))]:
        try:
            lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        except OSError:  # it has ended
            continue
        for line in lines:
            name, _, value = line.partition(":")
            if name in FIELDS:
                found[FIELDS[name]] += int(value.split()[0]) * 1024
    return Memory(**found)


class Sampler:
    """Samples the memory of this process's children, and keeps the peak of each phase."""

    def __init__(self) -> None:
        self.peaks: dict[str, Memory] = {}
        self.seconds: dict[str, float] = {}
        self._began = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def begin(self, phase: str) -> None:
        """What follows belongs to this phase."""
        self.end()
        self.peaks[phase], self._began = Memory(), time.monotonic()
        if not self._thread.is_alive():
            self._thread.start()

    def end(self) -> None:
        """The last phase is over."""
        if self.peaks:
            self.seconds[next(reversed(self.peaks))] = time.monotonic() - self._began

    def close(self) -> None:
        """Sample no longer."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            peak, total = next(reversed(self.peaks.values())), Memory()
            for child in psutil.Process().children():
                one = memory_of_tree(child.pid)
                total = Memory(total.own + one.own, total.files + one.files)
            peak.keep_peak(total)


def ask(api: str, body: Mapping[str, Any]) -> None:
    """One request.

    Raises:
        SystemExit: it fails.
    """
    response = httpx.post(f"{api}/chat/completions", json=dict(body), timeout=1800, trust_env=False)
    if not response.is_success:
        raise SystemExit(f"status {response.status_code}: {response.text}")


def requests(prompt: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """A request of each kind, by the name of its phase."""
    rng = random.Random(1)
    words = "one two three " * (prompt // 3)
    for name, content in (("short text", "Hello"), ("long text", words)):
        yield name, {"messages": [{"role": "user", "content": content}]}
    yield "image", soak.image(rng)
    yield "audio", soak.audio(rng)


def measure(given: argparse.Namespace, sampler: Sampler) -> None:
    """Serve the checkpoint, and send a request of each kind."""
    settings = {"GEMMA_MAX_MODEL_LEN": str(given.context), "GEMMA_MAX_NUM_SEQS": str(given.slots)}
    sampler.begin("start")
    with serving(given.model, environment=settings) as stack:
        sampler.begin("idle")
        time.sleep(IDLE_S)
        for phase, body in requests(given.prompt):
            sampler.begin(phase)
            ask(stack.api, {"model": "gemma3n", "max_tokens": TOKENS, **body})
        sampler.end()
        sampler.close()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="hub id, folder or GGUF file")
    parser.add_argument("--context", type=int, default=8192, help="tokens of a slot")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=2000, help="words of the long text")
    given = parser.parse_args()
    sampler = Sampler()
    measure(given, sampler)
    print("| phase | seconds | own memory, GB | pages of files, GB |\n| --- | --- | --- | --- |")
    for phase, peak in sampler.peaks.items():
        own, files = peak.own / 1e9, peak.files / 1e9
        print(f"| {phase} | {sampler.seconds[phase]:.1f} | {own:.2f} | {files:.2f} |")


if __name__ == "__main__":
    main()
