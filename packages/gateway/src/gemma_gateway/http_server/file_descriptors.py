"""The limit on open files, and how many of them may be client connections."""

import resource
from typing import Final

RESERVE: Final = 128
"""File descriptors for Triton, fetched images, files, and connections that are being accepted."""
MOST: Final = 10_000
"""The default for the maximum number of connections."""


def raise_limit() -> int:
    """Raises the soft limit on open files to the hard one, as Go and nginx do; returns the limit.

    The low soft limit protects programs that use ``select``; this one does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + MOST // 4 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return open_files()


def open_files() -> int:
    """The current limit."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST * 10 if soft == resource.RLIM_INFINITY else soft


def connection_limit(wanted: int, descriptors: int) -> int:
    """The maximum number of open connections.

    Args:
        wanted: the configured number; 0: as many as the limit on open files allows, at most ``MOST``.
        descriptors: the limit on open files. A quarter of it, at least ``RESERVE``, is for other purposes.
    """
    if wanted:
        return min(wanted, max(1, descriptors - RESERVE))
    return max(1, min(MOST, descriptors - max(RESERVE, descriptors // 4)))
