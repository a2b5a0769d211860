"""Store when each token was last used, in token-use.json: `{"<token id>": "<RFC 3339>"}`. Blocking.

The file is in the state directory. The service writes it at most once a minute; `jobsvc token list` reads it.
Nothing depends on it: an invalid file counts as empty and is replaced.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import orjson

from jobsvc.domain.timestamp import parse_time
from jobsvc.storage.files.atomic_write import write_atomically
from jobsvc.storage.state import private_file
from jobsvc.storage.state.token_format import time_text

MAX_FILE_BYTES: Final = 16 << 20
"""Maximum size of the file, in bytes."""


def load_use(path: Path) -> dict[str, float]:
    """Return the last use of each token by id, in seconds since the epoch; raises OSError."""
    try:
        record = orjson.loads(private_file.read_private(path, MAX_FILE_BYTES))
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
        record = {token_id: time_text(when) for token_id, when in merged.items()}
        write_atomically(path, orjson.dumps(record, option=orjson.OPT_INDENT_2), 0o600)
