"""Descriptors: raise the process's limit, and share it out between connections and everything else."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys
from contextlib import suppress
from typing import Final

from jobsvc.web.connection.connection_limits import RESERVED

MAX_DESCRIPTOR_LIMIT: Final = 1_048_576
"""The limit is raised to the hard one, but not above this: some systems have 1,073,741,816."""
DEFAULT_MAX_CONNECTIONS: Final = 16_384
"""Default limit of connections where descriptors allow more: each takes about 25 kB while it is idle."""
DESCRIPTORS_PER_DOWNLOAD: Final = 2
"""Descriptors of a download beside its connection: the file, and a duplicate of the socket."""
BASE_RESERVED_DESCRIPTORS: Final = 256
"""For storage threads, outputs kept open, child processes, the state directory and the event loop."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one, at most HIGHEST_LIMIT; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTOR_LIMIT if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTOR_LIMIT)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_DESCRIPTOR_LIMIT if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):  # a sandbox forbids it
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def descriptor_limit() -> int:
    """Return the soft limit of descriptors."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_DESCRIPTOR_LIMIT if soft == resource.RLIM_INFINITY else soft


def connections_allowed(limit: int, max_downloads: int) -> int:
    """Return how many connections fit into `limit` descriptors beside everything else: a quarter at least."""
    reserve = BASE_RESERVED_DESCRIPTORS + DESCRIPTORS_PER_DOWNLOAD * max_downloads + RESERVED
    return max(limit - reserve, limit // 4, 1)


def open_standard_streams() -> None:
    """Open /dev/null for each of descriptors 0 to 2 that is closed.

    Otherwise a socket or a file of the storage would get its number, and receive what is printed.
    """
    for number in range(3):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError as exc:
            if exc.errno != errno.EBADF:
                raise
            # The lowest free number is the one that is missing.
            os.open(os.devnull, os.O_RDWR)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
