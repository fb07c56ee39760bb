"""Compiles grammars and validates outputs in a child process.

A schema of a hundred bytes can keep a compiler busy for an hour, a long chain of rules can overflow its
stack, and a pattern can keep a validator busy for even longer. A library call has no timeout and its crash
cannot be caught; a process can be killed and replaced without harm to the server. In addition, the child does
not hold the GIL while the engine needs it.
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


class Sandbox:
    """A child process, started when it is first needed and again after it has died.

    Args:
        cpu_seconds: maximum CPU time of one job.
    """

    def __init__(self, cpu_seconds: int = CPU_SECONDS) -> None:
        self.cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def run(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """The result of a job; ``None`` if the child died.

        Args:
            job: see ``run_job``.
        """
        with self._lock:
            child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps(job) + "\n")
                child.stdin.flush()
            if line := child.stdout.readline():
                result: dict[str, Any] = json.loads(line)
                return result
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


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Run one job, in the child.

    ``{"options": …, "level": …}`` builds a grammar; ``{"schema": …, "instance": …}`` validates an output.
    """
    # Imported here because the server needs none of it.
    from gemma_model.json_schema.validate import is_valid  # noqa: PLC0415
    from gemma_model.structured_output.grammar_builder import GrammarBuilder  # noqa: PLC0415
    from gemma_wire import InvalidRequest, Options  # noqa: PLC0415

    if "instance" in job:
        return {"valid": is_valid(job["schema"], job["instance"])}
    try:
        built = GrammarBuilder(job["level"]).build(Options.model_validate(job["options"]))
    except InvalidRequest as error:
        return {"message": error.message, "field": error.field}
    return vars(built)


def main(cpu_seconds: int) -> None:
    """Run the jobs of the input, one per line, until it ends or until one exceeds a limit."""
    sys.setrecursionlimit(10_000)
    for limit, most in ((resource.RLIMIT_STACK, STACK_BYTES), (resource.RLIMIT_AS, MEMORY_BYTES)):
        resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run_job({"schema": True, "instance": "0"})  # imports must not count as time of the first job
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        deadline = int(used.ru_utime + used.ru_stime) + cpu_seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (deadline, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        print(json.dumps(run_job(json.loads(line))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
