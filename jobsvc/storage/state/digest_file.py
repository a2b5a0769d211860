"""Store digests across restarts, in digests.jsonl in the state directory. Blocking.

Each computed digest is appended as one line; if a key has two lines, the later one applies:
    {"job": KEY, "version": HEX, "sha256": HEX, "crc32": NUMBER}
`crc32` covers the other members: a damaged but well-formed line must not make an intact output look broken.
Invalid lines are skipped and counted. The file is not fsynced on append: a lost digest is computed again.
Mode 0600.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from zlib import crc32

import orjson

from jobsvc.storage.files.atomic_write import chown_to_folder_owner, write_atomically
from jobsvc.storage.files.file_version import PACKED_SIZE
from jobsvc.storage.state.digest_table import ENTRY_BYTES, MAX_DIGESTS, is_digest_key
from jobsvc.storage.state.private_file import read_private

MAX_LINE_BYTES: Final = 384
"""Maximum length of a line, in bytes."""

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class DigestFile:
    """The digest file; used by one thread at a time. Methods raise OSError, which the caller reports."""

    def __init__(self, path: Path, max_digests: int = MAX_DIGESTS) -> None:
        """Set the path; the file has up to 2 * `max_digests` + 1 lines."""
        self._path = path
        self._max_digests = max_digests
        self._lines = 0
        self._is_valid = False
        """Whether every line is valid and has a line end, so that a line can be appended."""

    @property
    def needs_rewrite(self) -> bool:
        """Whether the file should be rewritten: it has invalid lines or too many."""
        return not self._is_valid or self._lines > 2 * self._max_digests

    def load(self) -> tuple[dict[str, bytes], int]:
        """Return the entries for a DigestTable and the number of invalid lines.

        Raises ValueError if the file is not private or is too large, OSError if it cannot be read.
        """
        *lines, rest = self._read().split(b"\n")
        entries: dict[str, bytes] = {}
        skipped = 1 if rest else 0
        for line in lines:
            if (parsed := _parsed(line)) is None:
                skipped += 1
            else:
                entries.pop(parsed[0], None)
                entries[parsed[0]] = parsed[1]
        while len(entries) > self._max_digests:
            del entries[next(iter(entries))]
        self._lines, self._is_valid = len(lines), not skipped
        return entries, skipped

    def append(self, key: str, entry: bytes) -> None:
        """Append a line."""
        line = _line(key, entry)
        descriptor = os.open(self._path, _FLAGS, 0o600)
        try:
            chown_to_folder_owner(descriptor, self._path.parent)
            # A line cut short, by a full disk, is invalid.
            self._is_valid = os.write(descriptor, line) == len(line) and self._is_valid
        finally:
            os.close(descriptor)
        self._lines += 1

    def rewrite(self, entries: Mapping[str, bytes]) -> None:
        """Replace the file with these entries."""
        write_atomically(self._path, b"".join(map(_line, entries, entries.values())), 0o600)
        self._lines, self._is_valid = len(entries), True

    def _read(self) -> bytes:
        try:
            return read_private(self._path, MAX_LINE_BYTES * (2 * self._max_digests + 1))
        except FileNotFoundError:
            return b""


def _line(key: str, entry: bytes) -> bytes:
    line = {
        "job": key,
        "version": entry[:PACKED_SIZE].hex(),
        "sha256": entry[PACKED_SIZE:].hex(),
        "crc32": crc32(entry, crc32(key.encode())),
    }
    return orjson.dumps(line) + b"\n"


def _parsed(line: bytes) -> tuple[str, bytes] | None:
    """Return the key and the entry in a line; None if the line is invalid."""
    try:
        parsed = orjson.loads(line)
        key, entry = parsed["job"], bytes.fromhex(parsed["version"]) + bytes.fromhex(parsed["sha256"])
        is_valid = is_digest_key(key) and parsed["crc32"] == crc32(entry, crc32(key.encode()))
    except (ValueError, KeyError, TypeError):
        return None
    return (key, entry) if is_valid and len(entry) == ENTRY_BYTES else None
