"""Read and change the revoked links, revoked-links.json: `{"links": {"<id>": "<RFC 3339>"}}`. Blocking.

The time is when the link expires: after that, it need not be in the file any more. The file is in the secrets
directory if there is one, else in the state directory. `jobsvc link revoke` writes it, and services read it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson

from jobsvc.domain.timestamp import parse_time
from jobsvc.storage.files.descriptor_reserve import DescriptorReserve
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.state import private_file
from jobsvc.storage.state.link_record import is_link_id
from jobsvc.storage.state.token_format import time_text

MAX_FILE_BYTES: Final = 16 << 20
"""Maximum size of the file, in bytes: about 300,000 links."""


class BadRevokedLinks(Exception):
    """The file cannot be used; the message names the file and the problem."""


class RevokedLinksState(NamedTuple):
    """The revoked links, and the file version they were read from."""

    version: FileVersion | None
    """None if there was no file."""
    links: Mapping[str, float]
    """When each link expires, by id, in seconds since the epoch."""


def load_revoked(
    path: Path,
    known: RevokedLinksState | None = None,
    reserve: DescriptorReserve | None = None,
    *,
    shared: bool = False,
) -> RevokedLinksState:
    """Read the file; return `known` instead if its version is the same and cannot hide a later change.

    With a `reserve` the file can be read even if the process has used up its descriptors. `shared` is as in
    private_file.py. Raises BadRevokedLinks, never OSError.
    """
    open_file = os.open if reserve is None else reserve.open
    version = None if known is None else known.version
    with private_file.errors_as(BadRevokedLinks, path):
        try:
            read = private_file.read_if_changed(path, version, MAX_FILE_BYTES, open_file, shared=shared)
        except FileNotFoundError:
            return RevokedLinksState(None, MappingProxyType({}))
        if read is None:
            assert known is not None  # noqa: S101 - it has the version
            return known
        return RevokedLinksState(read.version, _parse(read.data))


def add_revoked(path: Path, links: Mapping[str, float], now: float, *, shared: bool = False) -> None:
    """Add revoked links, by id with the time when they expire; remove expired ones. Times as in the state.

    A missing directory is created with mode 0700. Raises BadRevokedLinks, OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with private_file.lock_file(path, shared=shared):
        merged = {**load_revoked(path, shared=shared).links, **links}
        record = {name: time_text(expires) for name, expires in merged.items() if expires > now}
        data = orjson.dumps({"links": record}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        if len(data) > MAX_FILE_BYTES:
            raise BadRevokedLinks(f"{path}: is full (limit: {MAX_FILE_BYTES} bytes)")
        private_file.write_private(path, data, shared=shared)


def _parse(data: bytes) -> dict[str, float]:
    """Parse the file; raises ValueError, whose message quotes no value."""
    try:
        record = orjson.loads(data)
        links = {name: parse_time(expires) / 1e6 for name, expires in record["links"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError("not an object with the time when each link expires") from exc
    if not all(map(is_link_id, links)):
        raise ValueError("has a name that is not the id of a link")
    return links
