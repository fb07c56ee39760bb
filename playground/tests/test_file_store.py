import io
import threading
from pathlib import Path

import pytest

from gemma_playground.file_store import FileStore, LimitExceededError
from gemma_playground.settings import PlaygroundSettings

KIB = 1024
LIMITS = PlaygroundSettings(
    max_file_bytes=40 * KIB, max_session_bytes=100 * KIB, max_total_bytes=150 * KIB, file_seconds=600
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> FileStore:
    return FileStore(tmp_path, LIMITS, clock)


def test_a_file_belongs_to_its_session_alone(store: FileStore) -> None:
    path = store.add("a", "png", b"x")
    found = store.find("a", path)
    assert found is not None
    assert Path(found.path).read_bytes() == b"x"
    assert found.kind == "png"
    assert store.readable_path("a", path) == Path(path)
    for session in ("b", ""):
        assert store.find(session, path) is None
        assert store.readable_path(session, path) is None
    assert store.add("b", "png", b"x") != path, "the same content of another is another file"


@pytest.mark.parametrize("given", ["{}/", "{}/.", "//{}", "{}\0", "{}%00", "file://{}", "./{}", " {}", ""])
def test_only_the_exact_path_identifies_a_file(store: FileStore, given: str) -> None:
    path = store.add("a", "png", b"x")
    assert store.find("a", given.format(path)) is None
    assert store.find("a", f"{store.folder}/../{store.folder.name}/{Path(path).name}") is None


def test_files_outside_the_store_are_not_shown(store: FileStore) -> None:
    other = store.folder / "other.png"
    other.write_bytes(b"x")
    assert store.readable_path("a", str(other)) is None
    store.publish([str(other)])
    assert store.readable_path("a", str(other)) == other
    assert store.find("a", str(other)) is None, "what everybody sees is nobody's upload"


def test_the_same_content_is_stored_once(store: FileStore, clock: Clock) -> None:
    first = store.add("a", "png", b"x")
    clock.now = 500
    assert store.add("a", "png", io.BytesIO(b"x")) == first
    clock.now = 1000
    assert store.find("a", first), "it is as young as its last use"
    assert store.add("a", "gif", b"x") != first
    Path(first).unlink()
    assert Path(store.add("a", "png", b"x")).exists()


@pytest.mark.parametrize(
    ("size", "status", "told"), [(0, 400, "empty"), (40 * KIB + 1, 413, "a file may have at most")]
)
def test_a_file_of_no_or_too_many_bytes_is_refused(
    store: FileStore, size: int, status: int, told: str
) -> None:
    for content in (b"x" * size, io.BytesIO(b"x" * size)):
        with pytest.raises(LimitExceededError, match=told) as refused:
            store.add("a", "png", content)
        assert refused.value.status == status
    assert list(store.folder.iterdir()) == []
    assert store.used() == 0


def fill(store: FileStore, session: str, size: int = 40 * KIB) -> None:
    """Until there is no space."""
    for number in range(100):
        store.add(session, "png", bytes([number]) * size)


def test_a_session_and_all_have_a_limit(store: FileStore) -> None:
    with pytest.raises(LimitExceededError, match="one browser") as refused:
        fill(store, "a")
    assert refused.value.status == 413
    assert store.used("a") == 80 * KIB
    with pytest.raises(LimitExceededError, match="no space for more") as refused:
        fill(store, "b")
    assert refused.value.status == 507
    assert store.used() == 120 * KIB == sum(each.stat().st_size for each in store.folder.iterdir())


def test_many_small_files_are_limited_too(store: FileStore) -> None:
    with pytest.raises(LimitExceededError, match="one browser"):
        fill(store, "a", 1)
    assert len(list(store.folder.iterdir())) == 25, "each counts as 4 KiB"


def test_old_files_are_deleted_and_make_room(store: FileStore, clock: Clock) -> None:
    old = store.add("a", "png", b"x" * 40 * KIB)
    clock.now = 300
    young = store.add("a", "png", b"y")
    clock.now = 600
    assert store.find("a", old) is None
    assert store.find("a", young)
    assert [str(each) for each in store.folder.iterdir()] == [young]
    clock.now = 900
    store.expire()
    assert list(store.folder.iterdir()) == []
    assert (store.used("a"), store.used()) == (0, 0)


def test_space_is_reserved_for_uploads(store: FileStore) -> None:
    with store.reserved("a", 90 * KIB), pytest.raises(LimitExceededError):
        store.add("a", "png", b"x" * 20 * KIB)
    assert store.add("a", "png", b"x" * 20 * KIB)
    with pytest.raises(RuntimeError), store.reserved("a", 1):
        raise RuntimeError
    assert store.used() == 20 * KIB


def test_many_at_once_stay_within_the_limit(store: FileStore) -> None:
    refused = []

    def add(number: int) -> None:
        try:
            store.add("a", "png", bytes([number]) * 30 * KIB)
        except LimitExceededError as error:
            refused.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.used() == 90 * KIB == sum(each.stat().st_size for each in store.folder.iterdir())
    assert len(refused) == 17


def test_a_file_that_cannot_be_written_leaves_nothing(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            if self.reads > 2:
                raise OSError("No space left on device")
            return super().read(size)

    with pytest.raises(OSError, match="No space"):
        store.add("a", "png", Broken(b"x"))
    assert list(store.folder.iterdir()) == []
    assert store.used() == 0
