"""Responses and their input in an SQLite file, separated by API key and limited in age and size.

All work is done in one thread, with one connection. One gateway process uses a file at a time.
"""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

T = TypeVar("T")
JsonObject = dict[str, Any]
_SECONDS_PER_DAY: Final = 86_400
_RUNNING: Final = ("queued", "in_progress")
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS responses (
    owner TEXT, id TEXT, created REAL, previous TEXT, body TEXT, bytes INTEGER, PRIMARY KEY (owner, id)
);
CREATE INDEX IF NOT EXISTS responses_created ON responses (created);
CREATE TABLE IF NOT EXISTS items (
    owner TEXT, response TEXT, place INTEGER, id TEXT, item TEXT, is_output INTEGER,
    PRIMARY KEY (owner, response, place),
    FOREIGN KEY (owner, response) REFERENCES responses (owner, id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS items_id ON items (owner, id);
"""
_INTERRUPTED: Final = {
    "code": "server_error",
    "message": "The server was stopped before the response was complete.",
}


class StoredResponse(NamedTuple):
    """A response as it is stored.

    Args:
        body: the response.
        input: the items of its own input, without those of earlier responses.
        previous: the id of the response that it continues.
    """

    body: JsonObject
    input: Sequence[JsonObject]
    previous: str | None = None


class ResponseStore:
    """The stored responses. An ``owner`` is an API key, in a form from which it cannot be derived.

    Args:
        path: of the file; it is made if it does not exist.
        days: responses are deleted after this time.
        max_bytes: of the JSON of all responses together; the oldest are deleted first.
        now: the time in seconds.
    """

    def __init__(self, path: Path, days: float, max_bytes: int, now: Callable[[], float] = time.time) -> None:
        self._path, self._days, self._max_bytes, self._now = path, days, max_bytes, now
        self._thread = ThreadPoolExecutor(1, "response-store")
        self._database: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Opens the file. Responses that were in progress when it was last used have failed.

        Raises:
            OSError: it cannot be opened.
            sqlite3.Error: it is not a database.
        """
        await self._run(self._open)

    async def close(self) -> None:
        """Closes the file; nothing can be stored afterwards."""
        await self._run(self._connection.close)
        self._thread.shutdown()

    async def put(self, owner: str, stored: StoredResponse) -> None:
        """Stores a response, or replaces it."""
        await self._run(lambda: self._put(owner, stored))

    async def get(self, owner: str, response_id: str) -> JsonObject | None:
        """The response, if this owner has one of this id."""
        return await self._run(lambda: self._body(owner, response_id))

    async def delete(self, owner: str, response_id: str) -> bool:
        """Deletes a response; whether there was one."""
        return await self._run(lambda: self._delete(owner, response_id))

    async def input_items(self, owner: str, response_id: str) -> list[JsonObject] | None:
        """The items of a response's own input, oldest first; ``None`` if there is no such response."""
        return await self._run(
            lambda: (
                None
                if self._body(owner, response_id) is None
                else self._items(owner, response_id, is_output=False)
            )
        )

    async def history(self, owner: str, response_id: str) -> list[JsonObject] | None:
        """Input and output of a response and of all that it continues, oldest first.

        ``None`` if one of them does not exist.
        """
        return await self._run(lambda: self._history(owner, response_id))

    async def item(self, owner: str, item_id: str) -> JsonObject | None:
        """An item of the input or output of any response, by its id."""
        return await self._run(lambda: self._item(owner, item_id))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    @property
    def _connection(self) -> sqlite3.Connection:
        assert self._database is not None, "the store is open"
        return self._database

    def _open(self) -> None:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # only this user may read it
        self._database = sqlite3.connect(self._path, timeout=30)
        for setting in ("journal_mode = WAL", "foreign_keys = ON", "secure_delete = ON"):
            self._database.execute(f"PRAGMA {setting}")
        with self._database:
            self._database.executescript(_TABLES)
            self._fail_interrupted(self._database)
            self._expire(self._database)

    def _fail_interrupted(self, database: sqlite3.Connection) -> None:
        database.execute(
            "UPDATE responses SET body = json_set(body, '$.status', 'failed', '$.error', json(?)) "
            "WHERE json_extract(body, '$.status') IN (?, ?)",
            (json.dumps(_INTERRUPTED), *_RUNNING),
        )

    def _put(self, owner: str, stored: StoredResponse) -> None:
        response_id, body = stored.body["id"], json.dumps(stored.body)
        rows = [(json.dumps(item), item["id"], False) for item in stored.input]
        rows += [(json.dumps(item), item["id"], True) for item in stored.body["output"]]
        size = len(body) + sum(len(text) for text, _, _ in rows)
        with self._connection as database:
            database.execute("DELETE FROM responses WHERE owner = ? AND id = ?", (owner, response_id))
            database.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?)",
                (owner, response_id, self._now(), stored.previous, body, size),
            )
            database.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (owner, response_id, i, item_id, text, is_output)
                    for i, (text, item_id, is_output) in enumerate(rows)
                ],
            )
            self._expire(database)

    def _expire(self, database: sqlite3.Connection) -> None:
        """Deletes what is too old, then the oldest until the rest is not too large."""
        database.execute(
            "DELETE FROM responses WHERE created < ?", (self._now() - self._days * _SECONDS_PER_DAY,)
        )
        database.execute(
            "DELETE FROM responses WHERE rowid IN (SELECT rowid FROM (SELECT rowid, SUM(bytes) OVER "
            "(ORDER BY created DESC, rowid DESC) AS newer FROM responses) WHERE newer > ?)",
            (self._max_bytes,),
        )

    def _body(self, owner: str, response_id: str) -> JsonObject | None:
        query = "SELECT body FROM responses WHERE owner = ? AND id = ?"
        row = self._connection.execute(query, (owner, response_id)).fetchone()
        return row and dict(json.loads(row[0]))

    def _delete(self, owner: str, response_id: str) -> bool:
        with self._connection as database:
            query = "DELETE FROM responses WHERE owner = ? AND id = ?"
            return database.execute(query, (owner, response_id)).rowcount > 0

    def _items(self, owner: str, response_id: str, is_output: bool | None = None) -> list[JsonObject]:
        query = "SELECT item FROM items WHERE owner = ? AND response = ?"
        query += "" if is_output is None else f" AND is_output = {int(is_output)}"
        rows = self._connection.execute(f"{query} ORDER BY place", (owner, response_id))
        return [json.loads(text) for (text,) in rows]

    def _history(self, owner: str, response_id: str) -> list[JsonObject] | None:
        parts: list[list[JsonObject]] = []
        following: str | None = response_id
        while following is not None:
            query = "SELECT previous FROM responses WHERE owner = ? AND id = ?"
            row = self._connection.execute(query, (owner, following)).fetchone()
            if row is None:
                return None
            parts.append(self._items(owner, following))
            following = row[0]
        return [item for part in reversed(parts) for item in part]

    def _item(self, owner: str, item_id: str) -> JsonObject | None:
        query = "SELECT item FROM items WHERE owner = ? AND id = ? LIMIT 1"
        row = self._connection.execute(query, (owner, item_id)).fetchone()
        return row and dict(json.loads(row[0]))
