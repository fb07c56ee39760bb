"""Compiles grammars and validates outputs in a child process.

A schema of a hundred bytes can take an hour to compile, a long chain of rules can overflow the stack, and the
validation of a pattern can take even longer. A library call has no timeout, and its crash cannot be caught. A
child process can be killed and replaced without harm to the server. It also does not hold the server's GIL.
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
"""Default CPU time of one job."""
STACK_BYTES = 4 * 2**20  # half of the stack of a thread of the server
MEMORY_BYTES = 2 * 2**30


class Sandbox:
    """A child process that starts with the first job, and again after it was killed or has crashed.

    Args:
        cpu_seconds: maximum CPU time of one job.
    """

    def __init__(self, cpu_seconds: int = CPU_SECONDS) -> None:
        self.cpu_seconds = cpu_seconds
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def run(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """Run a job in the child process. Returns its result; ``None`` if the process was killed.

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
        """End the child process."""
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
    """Run one job, in the child process.

    ``{"options": …, "level": …}`` builds a grammar; ``{"schema": …, "instance": …}`` validates an output.
    """
    # Imported here because only the child process uses it.
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
    """Run the jobs of standard input, one per line, until it ends or a job exceeds a limit."""
    sys.setrecursionlimit(10_000)
    for limit, maximum in ((resource.RLIMIT_STACK, STACK_BYTES), (resource.RLIMIT_AS, MEMORY_BYTES)):
        resource.setrlimit(limit, (maximum, resource.getrlimit(limit)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run_job({"schema": True, "instance": "0"})  # the first job does not pay for imports
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        deadline = int(used.ru_utime + used.ru_stime) + cpu_seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (deadline, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        print(json.dumps(run_job(json.loads(line))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
