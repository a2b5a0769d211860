"""Store when each token was last used, in token-use.json: `{"<token id>": "<RFC 3339>"}`. Blocking.

The file is in the state directory. The service writes it at most once a minute; `jobsvc token list` reads it.
Nothing depends on it: an invalid file counts as empty and is replaced.
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
"""Maximum size of the file, in bytes."""


def load_use(path: Path) -> dict[str, float]:
    """Return the last use of each token by id, in seconds since the epoch; raises OSError."""
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
    """Merge times of use into the file: the later time applies, ids not in `known` are dropped.

    Several services that share a state directory can all write the file. Raises OSError.
    """
    with private_file.lock_file(path):
        merged = {token_id: when for token_id, when in load_use(path).items() if token_id in known}
        for token_id, when in used.items():
            merged[token_id] = max(when, merged.get(token_id, when))
        record = {token_id: format_time(round(when * 1000) * 1000) for token_id, when in merged.items()}
        write_atomically(path, orjson.dumps(record, option=orjson.OPT_INDENT_2), 0o600)
