"""Grammars are tried in a process of their own first: ``python -m gemma_model.trial SECONDS``.

A schema of a hundred bytes can keep a compiler busy for an hour, and a long chain of rules can overflow its
stack. A library call can be neither timed out nor survived; a process can. What hangs or crashes does so in
the child, which is replaced, and never reaches the server.
"""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import suppress

import llguidance
import numpy as np

CPU_SECONDS = 2
STEPS = 64
"""So many bytes of an answer are tried, since some grammars are small and cost much to follow."""
STACK_BYTES = 4 * 2**20  # half of what the server's threads have
MEMORY_BYTES = 2 * 2**30
LIMITS = llguidance.LLParserLimits(max_lexer_states=50_000, verbose_errors=False)  # 2 kB a state


class Trial:
    """The child, started when it is first needed and again after each of its deaths.

    Args:
        cpu_seconds: that one grammar may take.
    """

    def __init__(self, cpu_seconds: int = CPU_SECONDS) -> None:
        self._cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def complaint(self, grammar: str) -> str:
        """Why this grammar, in llguidance's own notation, cannot be honoured; empty when it can."""
        with self._lock:
            child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(grammar) + "\n")
                child.stdin.flush()
            if answer := child.stdout.readline():
                return str(json.loads(answer))
            self._end()
            return f"it takes more than {self._cpu_seconds} s, or too much memory, to prepare"

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[str]:
        python = sys.executable if os.access(sys.executable or "", os.X_OK) else shutil.which("python3")
        self._child = subprocess.Popen(
            [python or "python3", "-m", __name__, str(self._cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()


def try_out(grammar: str, tokenizer: llguidance.LLTokenizer) -> str:
    """Compile a grammar and follow it for some steps; what is wrong with it, or nothing."""
    matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)
    choose = random.Random(0).choice
    for _ in range(STEPS):
        if matcher.is_error() or matcher.is_stopped():
            break
        words = np.frombuffer(matcher.compute_bitmask(), "<i4")
        allowed = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))
        if not len(allowed):
            return "nothing fits it"
        matcher.consume_token(choose(allowed.tolist()))
    return matcher.get_error()


def byte_tokenizer() -> llguidance.LLTokenizer:
    """A token for each byte, and an end."""

    class Bytes:
        eos_token_id, bos_token_id, special_token_ids = 256, None, (256,)
        tokens = (*(bytes([byte]) for byte in range(256)), b"<eos>")

        def __call__(self, text: bytes) -> list[int]:
            return list(text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Bytes()))


def main(cpu_seconds: int) -> None:
    """Answer each line of input until there is none, or until one is too much."""
    for limit, most in ((resource.RLIMIT_STACK, STACK_BYTES), (resource.RLIMIT_AS, MEMORY_BYTES)):
        resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tokenizer = byte_tokenizer()
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        deadline = int(used.ru_utime + used.ru_stime) + cpu_seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (deadline, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        print(json.dumps(try_out(json.loads(line), tokenizer)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
