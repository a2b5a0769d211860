"""Raise the descriptor limit of the process and divide it between connections and everything else."""

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
"""Maximum to which the soft limit is raised; the hard limit is 1,073,741,816 on some systems."""
DEFAULT_MAX_CONNECTIONS: Final = 16_384
"""Default connection limit if descriptors allow more; an idle connection uses about 25 kB."""
DESCRIPTORS_PER_DOWNLOAD: Final = 2
"""Descriptors of a download besides its connection: the file and a duplicate of the socket."""
BASE_RESERVED_DESCRIPTORS: Final = 256
"""Descriptors of storage threads, cached outputs, child processes, the state directory and the event loop."""


def raise_descriptor_limit() -> int:
    """Raise the soft descriptor limit to the hard one, at most MAX_DESCRIPTOR_LIMIT; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTOR_LIMIT if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTOR_LIMIT)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_DESCRIPTOR_LIMIT if soft == resource.RLIM_INFINITY else soft
    with suppress(OSError, ValueError):  # a sandbox forbids it
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def descriptor_limit() -> int:
    """Return the soft descriptor limit; MAX_DESCRIPTOR_LIMIT if it is unlimited."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_DESCRIPTOR_LIMIT if soft == resource.RLIM_INFINITY else soft


def connections_allowed(limit: int, max_downloads: int) -> int:
    """Return how many connections `limit` descriptors allow, after everything else; at least a quarter."""
    reserve = BASE_RESERVED_DESCRIPTORS + DESCRIPTORS_PER_DOWNLOAD * max_downloads + RESERVED
    return max(limit - reserve, limit // 4, 1)


def open_standard_streams() -> None:
    """Open /dev/null for each closed descriptor from 0 to 2.

    Otherwise a socket or a file on storage would get that number and receive printed output.
    """
    for number in range(3):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError as exc:
            if exc.errno != errno.EBADF:
                raise
            # open(2) uses the lowest free number, which is the missing one.
            os.open(os.devnull, os.O_RDWR)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
