"""Grammars are prepared, and answers validated, in a process of their own: ``python -m gemma_model.trial``.

A schema of a hundred bytes can keep a compiler busy for an hour, a long chain of rules can overflow its
stack, and a pattern can keep a validator busy for longer than that. A library call can be neither timed out
nor survived; a process can. What hangs or crashes does so in the child, which is replaced, and never reaches
the server; nor does the child hold the interpreter's lock while the engine needs it.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

CPU_SECONDS = 2
STACK_BYTES = 4 * 2**20  # half of what the server's threads have
MEMORY_BYTES = 2 * 2**30


class Trial:
    """The child, started when it is first needed and again after each of its deaths.

    Args:
        cpu_seconds: that one job may take.
    """

    def __init__(self, cpu_seconds: int = CPU_SECONDS) -> None:
        self.cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def ask(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """What the child makes of a job; nothing when it died over it.

        Args:
            job: see ``gemma_model.trial.work``.
        """
        with self._lock:
            child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(job) + "\n")
                child.stdin.flush()
            if line := child.stdout.readline():
                answer: dict[str, Any] = json.loads(line)
                return answer
            self._end()
            return None

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _start(self) -> subprocess.Popen[str]:
        python = sys.executable if os.access(sys.executable or "", os.X_OK) else shutil.which("python3")
        self._child = subprocess.Popen(
            [python or "python3", "-m", __name__, str(self.cpu_seconds)],
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


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What the child does.

    ``{"options": …, "level": …}`` prepares a grammar, and ``{"schema": …, "answer": …}`` validates an answer.
    """
    # Imported here: the server needs none of it.
    from gemma_model.notation import Preparer  # noqa: PLC0415
    from gemma_model.schema.validate import fits  # noqa: PLC0415
    from gemma_wire import InvalidRequest, Options  # noqa: PLC0415

    if "answer" in job:
        return {"valid": fits(job["schema"], job["answer"])}
    try:
        prepared = Preparer(job["level"]).prepare(Options.model_validate(job["options"]))
    except InvalidRequest as error:
        return {"message": error.message, "field": error.field}
    return vars(prepared)


def main(cpu_seconds: int) -> None:
    """Do each job of the input until there is none, or until one is too much."""
    sys.setrecursionlimit(10_000)
    for limit, most in ((resource.RLIMIT_STACK, STACK_BYTES), (resource.RLIMIT_AS, MEMORY_BYTES)):
        resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work({"schema": True, "answer": "0"})  # what is imported is not the first job's time
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        deadline = int(used.ru_utime + used.ru_stime) + cpu_seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (deadline, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        print(json.dumps(work(json.loads(line))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
