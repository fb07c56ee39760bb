"""What one run owns, and the reaper that watches over it."""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from gemma_launcher import reaper
from gemma_launcher.errors import CannotStart
from gemma_launcher.settings import without_secrets


class Ownership:
    """The name of a run, its temporary folder, and its reaper; a context manager.

    Leaving the context closes the pipe to the reaper and waits until it has removed everything.
    """

    def __init__(self) -> None:
        self.name = f"gemma-{os.getpid()}-{secrets.token_hex(4)}"
        self.folder: Path = reaper.folder(self.name)
        self._reaper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.guard()
            self.folder.mkdir(mode=0o700)
        except OSError as error:
            raise CannotStart(
                f"{self.folder} cannot be made: {error.strerror}; set TMPDIR to another folder"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def mark(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The same environment, marked: what runs in it will be ended, and its temporary files removed."""
        return {**environment, reaper.MARK: self.name, "TMPDIR": str(self.folder)}

    def guard(self) -> None:
        """Starts the reaper, unless it runs."""
        if self._reaper is not None and self._reaper.poll() is None:
            return
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
        # The real interpreter and a relative path: a search for the launcher must not hit the reaper.
        self._reaper = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "reaper.py"],
            cwd=Path(reaper.__file__).parent,
            # Its TMPDIR is the one that holds our folder.
            env={**without_secrets(os.environ), reaper.MARK: self.name},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def sweep_shared_memory(self) -> None:
        """Removes the shared memory files of this run; call it while no Triton runs."""
        reaper.sweep_shared_memory(self.name)

    def release(self, patience_s: float = reaper.PATIENCE_S + 1) -> None:
        """Lets the reaper end everything that is left, and waits for it."""
        if self._reaper is None or self._reaper.stdin is None:
            return
        self._reaper.stdin.close()
        try:
            self._reaper.wait(patience_s)
        except subprocess.TimeoutExpired:
            return
        if self._reaper.returncode != 0:  # it was killed: do its work here
            reaper.end(self.name)
