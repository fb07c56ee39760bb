"""The files of the browsers: uploads, and pictures and sounds that a chat shows.

Each file belongs to the session that it was stored for, and nobody else can name it. A browser refers to a
file by the path that it was given, which is only compared with the known paths, and never opened as such.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gemma_playground.settings import MIB, Settings

SMALLEST: Final = 4096
"""Bytes that a file counts at least, so that the number of files is limited too."""
CHUNK: Final = 2**20
MEDIA_TYPES: Final = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
}
"""Of each suffix that a file may have."""


class LimitExceededError(Exception):
    """A file is not accepted; the sentence names the limit. ``status`` is HTTP's."""

    def __init__(self, sentence: str, status: int = 413) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class StoredFile:
    """A file on the disk."""

    path: str
    session: str
    digest: str
    size: int
    expires: float

    @property
    def kind(self) -> str:
        """Its suffix without the dot."""
        return self.path.rpartition(".")[2]


class FileStore:
    """All files, in one folder that nobody else writes to.

    Args:
        folder: exists, and is deleted by its owner when the playground stops.
        settings: the limits.
        clock: seconds; of the age of files.
    """

    def __init__(self, folder: Path, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._settings, self._clock = settings, clock
        self._files: dict[str, StoredFile] = {}  # the oldest first
        self._same: dict[tuple[str, str, str], str] = {}
        self._public: set[str] = set()
        self._used: dict[str, int] = {}
        self._total = 0
        self._lock = threading.RLock()

    def add(self, session: str, kind: str, content: bytes | BinaryIO) -> str:
        """Stores a file of a session, or finds the same content again. Raises LimitExceededError.

        Args:
            session: whose it is.
            kind: its suffix without the dot, one of ``MEDIA_TYPES``.
            content: of at most ``max_file_bytes`` bytes.
        """
        size, digest = _measured(content)
        self.check_size(size)
        with self._lock:
            self.expire()
            known = self._same.get((session, kind, digest))
            if known and Path(known).exists():
                self._renew(known)
                return known
            self._reserve(session, _charge(size))
        path = str(self.folder / f"{secrets.token_hex(16)}.{kind}")
        try:
            _write(Path(path), content)  # Others may store files of their own meanwhile.
        except BaseException:
            self._take(session, -_charge(size))
            raise
        with self._lock:
            self._files[path] = StoredFile(path, session, digest, size, self._expiry())
            self._same[session, kind, digest] = path
        return path

    def find(self, session: str, path: str) -> StoredFile | None:
        """The file of this session that has exactly this path."""
        with self._lock:
            self.expire()
            found = self._files.get(path)
        return found if found and secrets.compare_digest(found.session, session) else None

    def shown(self, session: str, path: str) -> Path | None:
        """Where the content of a file is that this session may see."""
        if path in self._public or self.find(session, path):
            return Path(path)
        return None

    def publish(self, paths: Iterable[str]) -> None:
        """Everybody may see these files, which are the page's own."""
        self._public.update(paths)

    @contextmanager
    def reserved(self, session: str, size: int) -> Iterator[None]:
        """Room for so many bytes that are about to come. Raises LimitExceededError."""
        self._reserve(session, charge := _charge(size))
        try:
            yield
        finally:
            self._take(session, -charge)

    def expire(self) -> None:
        """Deletes what is too old."""
        with self._lock:
            now = self._clock()
            while (oldest := next(iter(self._files.values()), None)) and oldest.expires <= now:
                self._remove(oldest)

    def used(self, session: str = "") -> int:
        """Bytes of a session, or of all."""
        with self._lock:
            return self._used.get(session, 0) if session else self._total

    def _renew(self, path: str) -> None:
        file = self._files.pop(path)
        self._files[path] = StoredFile(path, file.session, file.digest, file.size, self._expiry())

    def _remove(self, file: StoredFile) -> None:
        Path(file.path).unlink(missing_ok=True)
        del self._files[file.path]
        self._same.pop((file.session, file.kind, file.digest), None)
        self._take(file.session, -_charge(file.size))

    def _reserve(self, session: str, charge: int) -> None:
        with self._lock:
            self.expire()
            self._check_room(session, charge)
            self._take(session, charge)

    def _take(self, session: str, charge: int) -> None:
        with self._lock:
            self._total += charge
            self._used[session] = self._used.get(session, 0) + charge
            if not self._used[session]:
                del self._used[session]

    def _expiry(self) -> float:
        return self._clock() + self._settings.file_seconds

    def check_size(self, size: int) -> None:
        """Raises LimitExceededError for a file of no bytes or too many."""
        if not size:
            raise LimitExceededError("The file is empty.", status=400)
        if size > (limit := self._settings.max_file_bytes):
            raise LimitExceededError(f"The file has {_mib(size)}; a file may have {_mib(limit)}.")

    def _check_room(self, session: str, charge: int) -> None:
        limits, age = self._settings, f"Files are deleted after {self._settings.file_seconds // 60} minutes."
        if self.used(session) + charge > limits.max_session_bytes:
            most = _mib(limits.max_session_bytes)
            raise LimitExceededError(f"All files of one browser may have {most} together. {age}")
        if self.used() + charge > limits.max_total_bytes:
            raise LimitExceededError(f"The playground has no room for more files. {age}", status=507)


def _measured(content: bytes | BinaryIO) -> tuple[int, str]:
    """Length in bytes, and digest."""
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    content.seek(0)
    digest, size = hashlib.sha256(), 0
    while piece := content.read(CHUNK):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _write(path: Path, content: bytes | BinaryIO) -> None:
    """All of it, or no file."""
    try:
        with path.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
                return
            content.seek(0)
            while piece := content.read(CHUNK):
                file.write(piece)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _charge(size: int) -> int:
    return max(size, SMALLEST)


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MB".replace(".0 MB", " MB")
