"""Record the links that were created, in links.jsonl in the state directory: one line each. Blocking.

`jobsvc link list` reads it, and no decision depends on it: invalid lines are skipped, and a line that a crash
loses is missing only there. Expired links are dropped at the first append, and whenever the file has doubled.
Mode 0600.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jobsvc.storage.files.atomic_write import chown_to_folder_owner
from jobsvc.storage.state import private_file
from jobsvc.storage.state.link_record import IssuedLink, parse_issued_link

MAX_LINKS: Final = 50_000
"""Links that are kept; the ones created last."""
MAX_FILE_BYTES: Final = 128 << 20
"""A larger file is not read; links can have at most about 1 KiB each."""
MIN_REWRITE_BYTES: Final = 1 << 20
"""A smaller file is not rewritten, except at the first append."""

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def load_links(path: Path) -> list[IssuedLink]:
    """Return the links in the order of their creation.

    Raises OSError, and ValueError if the file is not private.
    """
    try:
        lines = private_file.read_private(path, MAX_FILE_BYTES).split(b"\n")
    except FileNotFoundError:
        return []
    return [link for link in map(parse_issued_link, lines) if link is not None]


class LinksFile:
    """The file as the service writes it, from one thread at a time. Several services can share it."""

    def __init__(self, path: Path, max_links: int = MAX_LINKS) -> None:
        self._path = path
        self._max_links = max_links
        self._rewrite_above = -1
        """Size in bytes above which the file is rewritten."""

    def append(self, links: Sequence[IssuedLink], now: float) -> None:
        """Append links, and drop expired ones if it is time; `now` is in seconds since the epoch.

        Without links, a missing file is not created. Raises OSError, also if the file is not private.
        """
        if not links and not self._path.exists():
            return
        lines = b"".join(link.line() + b"\n" for link in links)
        with private_file.lock_file(self._path):
            if _size(self._path) + len(lines) > self._rewrite_above:
                self._rewrite(links, now)
            else:
                _append(self._path, lines)

    def _rewrite(self, new: Sequence[IssuedLink], now: float) -> None:
        """Replace the file by its links that have not expired and the new ones; or change nothing."""
        try:
            links = [link for link in load_links(self._path) if link.expires > now]
        except ValueError as exc:
            raise OSError(errno.EINVAL, str(exc), str(self._path)) from exc
        kept = [*links, *new][-self._max_links :]
        content = b"".join(link.line() + b"\n" for link in kept)
        private_file.write_private(self._path, content)
        self._rewrite_above = max(2 * len(content), MIN_REWRITE_BYTES)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def _append(path: Path, lines: bytes) -> None:
    """Append to the file, after the end of the last line. Raises OSError."""
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        chown_to_folder_owner(descriptor, path.parent)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        while lines:
            lines = lines[os.write(descriptor, lines) :]
    finally:
        os.close(descriptor)
