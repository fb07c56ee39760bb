"""How many files the process may have open, and how many of them may be connections of clients."""

import resource
from typing import Final

RESERVE: Final = 128
"""Descriptors for everything else: Triton, fetched images, files, and connections that are being accepted."""
MOST: Final = 10_000
"""Connections, unless the operator says otherwise."""


def raise_limit() -> int:
    """Raises the soft limit on open files to the hard one, as Go and nginx do; returns the limit.

    Nothing here uses ``select``, which is what the low soft limit protects.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + MOST // 4 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return open_files()


def open_files() -> int:
    """The limit that holds now."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST * 10 if soft == resource.RLIM_INFINITY else soft


def connection_limit(wanted: int, descriptors: int) -> int:
    """The connections that may be open at a time.

    Args:
        wanted: by the operator; 0: as many as the limit on open files allows, and at most ``MOST``.
        descriptors: the limit on open files; a quarter of it, and at least ``RESERVE``, is no connection's.
    """
    if wanted:
        return min(wanted, max(1, descriptors - RESERVE))
    return max(1, min(MOST, descriptors - max(RESERVE, descriptors // 4)))
