"""Peers that stand still while another server is measured: some keep a core busy while they wait."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil


class Still:
    """The processes behind some URLs of this machine, stopped and continued by signals.

    Args:
        urls: label → URL; servers of other machines are left alone.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        ports = {urlsplit(url).port: label for label, url in urls.items()}
        self._trees: dict[str, list[psutil.Process]] = {}
        for connection in psutil.net_connections("tcp"):
            label = ports.get(connection.laddr.port) if connection.laddr else None
            if (
                label
                and connection.status == psutil.CONN_LISTEN
                and connection.pid not in (None, os.getpid())
            ):
                listener = psutil.Process(connection.pid)
                self._trees[label] = [listener, *listener.children(recursive=True)]

    @contextmanager
    def but(self, label: str) -> Iterator[None]:
        """While the block lasts this one goes on; before and after it none does."""
        self._send("resume", label)
        yield
        self._send("suspend", label)

    @contextmanager
    def held(self) -> Iterator[None]:
        """All stand still, but for those that are let go on; in the end all go on."""
        try:
            for label in self._trees:
                self._send("suspend", label)
            yield
        finally:
            for label in self._trees:
                self._send("resume", label)

    def _send(self, what: str, label: str) -> None:
        for process in self._trees.get(label, ()):
            if process.is_running():
                getattr(process, what)()
