"""Know which download links are revoked: those in revoked-links.json, and those that other instances know.

A link that is revoked once stays revoked in this process until it expires, even if the file is lost or cannot
be used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.revoked_links_file import RevokedLinksState, load_revoked
from jobsvc.web.auth.reloaded_file import ReloadedFile


class RevokedLinks:
    """The ids of revoked links. Belongs to the event loop; only `file` reads the file."""

    def __init__(
        self,
        path: Path,
        disk: StorageExecutor,
        *,
        shared: bool = False,
        clock: Callable[[], float] = time.time,
        on_bad_file: Callable[[Exception], None],
    ) -> None:
        """`path` is the file; `on_bad_file` is called if it cannot be used (see ReloadedFile).

        `shared`: whether the file is in a secrets directory (private_file.py).
        """
        self._clock = clock
        self.file: Final = ReloadedFile[RevokedLinksState](
            "*revoked-links",
            disk,
            load=partial(load_revoked, path, shared=shared),
            apply=lambda state: self.add(state.links),
            on_error=on_bad_file,
        )
        self._expires: dict[str, float] = {}

    def __contains__(self, link_id: object) -> bool:
        """Return whether the link with this id is revoked."""
        return link_id in self._expires

    def known(self) -> dict[str, float]:
        """Return when each revoked link expires, by id, in seconds since the epoch; without expired ones."""
        now = self._clock()
        return {link_id: expires for link_id, expires in self._expires.items() if expires > now}

    def add(self, links: Mapping[str, float]) -> None:
        """Add revoked links, by id with the time when they expire."""
        self._expires = {**self.known(), **links}
