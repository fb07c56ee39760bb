"""Stores uploaded files, and the images and audio that a chat shows.

Each file belongs to one session, and no other session can use it. A browser refers to a file by its path,
which is only compared with the known paths and never opened directly.
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

from gemma_playground.settings import MIB, PlaygroundSettings

MIN_CHARGED_BYTES: Final = 4096
"""Bytes that every file counts as at least, which also limits the number of files."""
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
    "m4a": "audio/mp4",
}
"""Supported suffix → media type."""


class LimitExceededError(Exception):
    """A file exceeds a limit, which the message names. ``status`` is the HTTP status."""

    def __init__(self, sentence: str, status: int = 413) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class StoredFile:
    """A stored file."""

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
    """All files, in one folder.

    Args:
        folder: must exist; its creator deletes it when the playground stops.
        settings: the limits.
        clock: monotonic time, seconds.
    """

    def __init__(
        self, folder: Path, settings: PlaygroundSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self._settings, self._clock = settings, clock
        self._files: dict[str, StoredFile] = {}  # oldest first
        self._by_digest: dict[tuple[str, str, str], str] = {}
        self._public: set[str] = set()
        self._used: dict[str, int] = {}
        self._total = 0
        self._lock = threading.RLock()

    def add(self, session: str, kind: str, content: bytes | BinaryIO) -> str:
        """Stores a file, or finds the same content of this session. Raises LimitExceededError.

        Args:
            session: its owner.
            kind: its suffix without the dot, one of ``MEDIA_TYPES``.
            content: of at most ``max_file_bytes`` bytes.
        """
        size, digest = _size_and_digest(content)
        self.check_size(size)
        with self._lock:
            self.expire()
            known = self._by_digest.get((session, kind, digest))
            if known and Path(known).exists():
                self._renew(known)
                return known
            self._reserve(session, _charge(size))
        path = str(self.folder / f"{secrets.token_hex(16)}.{kind}")
        try:
            _write(Path(path), content)  # without the lock, because it may take long
        except BaseException:
            self._add_charge(session, -_charge(size))
            raise
        with self._lock:
            self._files[path] = StoredFile(path, session, digest, size, self._expiry())
            self._by_digest[session, kind, digest] = path
        return path

    def find(self, session: str, path: str) -> StoredFile | None:
        """The file of this session with exactly this path."""
        with self._lock:
            self.expire()
            found = self._files.get(path)
        return found if found and secrets.compare_digest(found.session, session) else None

    def readable_path(self, session: str, path: str) -> Path | None:
        """The path, if this session may read the file."""
        if path in self._public or self.find(session, path):
            return Path(path)
        return None

    def publish(self, paths: Iterable[str]) -> None:
        """Allows all sessions to read these files of the page."""
        self._public.update(paths)

    @contextmanager
    def reserved(self, session: str, size: int) -> Iterator[None]:
        """Reserves ``size`` bytes within the context. Raises LimitExceededError."""
        self._reserve(session, charge := _charge(size))
        try:
            yield
        finally:
            self._add_charge(session, -charge)

    def expire(self) -> None:
        """Deletes files that are too old."""
        with self._lock:
            now = self._clock()
            while (oldest := next(iter(self._files.values()), None)) and oldest.expires <= now:
                self._remove(oldest)

    def used(self, session: str = "") -> int:
        """Used bytes of a session, or of all sessions."""
        with self._lock:
            return self._used.get(session, 0) if session else self._total

    def _renew(self, path: str) -> None:
        file = self._files.pop(path)
        self._files[path] = StoredFile(path, file.session, file.digest, file.size, self._expiry())

    def _remove(self, file: StoredFile) -> None:
        Path(file.path).unlink(missing_ok=True)
        del self._files[file.path]
        self._by_digest.pop((file.session, file.kind, file.digest), None)
        self._add_charge(file.session, -_charge(file.size))

    def _reserve(self, session: str, charge: int) -> None:
        with self._lock:
            self.expire()
            self._check_room(session, charge)
            self._add_charge(session, charge)

    def _add_charge(self, session: str, charge: int) -> None:
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
            raise LimitExceededError(f"The file has {_mib(size)}; a file may have at most {_mib(limit)}.")

    def _check_room(self, session: str, charge: int) -> None:
        limits, age = self._settings, f"Files are deleted after {self._settings.file_seconds // 60} minutes."
        if self.used(session) + charge > limits.max_session_bytes:
            most = _mib(limits.max_session_bytes)
            raise LimitExceededError(f"The files of one browser may have at most {most} in total. {age}")
        if self.used() + charge > limits.max_total_bytes:
            raise LimitExceededError(f"The playground has no space for more files. {age}", status=507)


def _size_and_digest(content: bytes | BinaryIO) -> tuple[int, str]:
    """Size in bytes, and digest."""
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    content.seek(0)
    digest, size = hashlib.sha256(), 0
    while chunk := content.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def _write(path: Path, content: bytes | BinaryIO) -> None:
    """Writes the file completely, or not at all."""
    try:
        with path.open("xb") as file:
            if isinstance(content, bytes):
                file.write(content)
                return
            content.seek(0)
            while chunk := content.read(CHUNK):
                file.write(chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _charge(size: int) -> int:
    return max(size, MIN_CHARGED_BYTES)


def _mib(size: int) -> str:
    return f"{size / MIB:,.1f} MB".replace(".0 MB", " MB")
