"""The resources of one run: its name, its temporary folder and its cleanup process."""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from gemma_launcher.errors import CommandError
from gemma_launcher.processes import orphan_cleanup
from gemma_launcher.settings import without_secrets


class RunScope:
    """A context manager; leaving it waits until the cleanup process has removed everything."""

    def __init__(self) -> None:
        self.name = f"gemma-{os.getpid()}-{secrets.token_hex(4)}"
        self.folder: Path = orphan_cleanup.run_folder(self.name)
        self._cleanup: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.ensure_cleanup_process()
            self.folder.mkdir(mode=0o700)
        except OSError as error:
            raise CommandError(
                f"{self.folder} cannot be created: {error.strerror}; set TMPDIR to another folder"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tag_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment for a process of this run, which marks it and its temporary files for cleanup."""
        return {**environment, orphan_cleanup.RUN_VARIABLE: self.name, "TMPDIR": str(self.folder)}

    def ensure_cleanup_process(self) -> None:
        """Starts the cleanup process unless it runs."""
        if self._cleanup is not None and self._cleanup.poll() is None:
            return
        if self._cleanup is not None and self._cleanup.stdin is not None:
            self._cleanup.stdin.close()
        # The real interpreter and a relative path: a search for the launcher must not match this process.
        self._cleanup = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "orphan_cleanup.py"],
            cwd=Path(orphan_cleanup.__file__).parent,
            # TMPDIR is the launcher's, where the folder of the run is.
            env={**without_secrets(os.environ), orphan_cleanup.RUN_VARIABLE: self.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def remove_shared_memory(self) -> None:
        """Removes the shared memory files of this run. Call it only while no Triton runs."""
        orphan_cleanup.remove_shared_memory(self.name)

    def close(self, timeout_s: float = orphan_cleanup.KILL_TIMEOUT_S + 1) -> None:
        """Lets the cleanup process end everything that is left, and waits for it."""
        if self._cleanup is None or self._cleanup.stdin is None:
            return
        self._cleanup.stdin.close()
        try:
            self._cleanup.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return
        if self._cleanup.returncode != 0:  # it was killed
            orphan_cleanup.end_run(self.name)
