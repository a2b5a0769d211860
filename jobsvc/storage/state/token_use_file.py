"""When each token was last used, token-use.json in the state directory: `{"<token id>": "<RFC 3339>"}`; sync.

Written by the service at most once a minute, and read by `jobsvc token list`. Nothing depends on it: a file
that makes no sense counts as empty and is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import orjson

from jobsvc.domain.timestamp import format_time, parse_time
from jobsvc.storage.files.atomic_write import write_atomically
from jobsvc.storage.files.pread import read_fully
from jobsvc.storage.state import private_file

MAX_FILE_BYTES: Final = 16 << 20
"""Bytes."""


def load_use(path: Path) -> dict[str, float]:
    """Return the last use of each token by its id, in seconds since the epoch; OSError."""
    try:
        with private_file.open_private(path) as descriptor:
            status = os.fstat(descriptor)
            private_file.check_private(status, MAX_FILE_BYTES)
            record = orjson.loads(read_fully(descriptor, 0, status.st_size))
        return {token_id: parse_time(when) / 1e6 for token_id, when in record.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        return {}


def record_use(path: Path, used: Mapping[str, float], known: Collection[str]) -> None:
    """Add to the file when tokens were used; the later time counts, ids not `known` are dropped. OSError.

    Services that share a state directory may all write: each adds what it saw.
    """
    with private_file.lock_file(path):
        merged = {token_id: when for token_id, when in load_use(path).items() if token_id in known}
        for token_id, when in used.items():
            merged[token_id] = max(when, merged.get(token_id, when))
        record = {token_id: format_time(round(when * 1000) * 1000) for token_id, when in merged.items()}
        write_atomically(path, orjson.dumps(record, option=orjson.OPT_INDENT_2), 0o600)
