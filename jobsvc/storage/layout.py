"""Every name on disk, spelled once: which names are jobs, where a record lies, what may be walked. Pure.

Job directory format 1: JOBS_ROOT/<job-id>/{status.json, render.log, output/...}.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

STATUS_FILE: Final = "status.json"
DEFAULT_LOG: Final = "render.log"

MAX_RECORD_BYTES: Final = 1 << 20
"""The largest status.json that is read, in bytes."""

TOKENS_FILE: Final = "tokens.json"
TOKEN_LABELS_FILE: Final = "token-labels.json"  # noqa: S105 - a file name
TOKEN_USE_FILE: Final = "token-use.json"  # noqa: S105 - likewise
LINK_KEY_FILE: Final = "link.key"
DOWNLOADS_FILE: Final = "downloads.jsonl"
DIGESTS_FILE: Final = "digests.jsonl"


class OutputRoot(NamedTuple):
    """A folder in which only one owner's jobs may name files by absolute paths."""

    owner: str
    path: Path


TEMP_PREFIX: Final = ".jobsvc-"
"""Files of ours that are not finished; no job id can begin so."""

MAX_PATH_BYTES: Final = 4096
"""The longest path that is walked, in characters (limits.h)."""

MAX_PATH_DEPTH: Final = 64
"""The most components that are walked: each holds a descriptor for the length of the walk."""

_JOB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def is_job_id(name: str) -> bool:
    """Whether a directory of this name is a job; every other name does not exist for us."""
    return _JOB_ID.fullmatch(name) is not None


@lru_cache(maxsize=4096)
def components(path: str) -> tuple[str, ...] | None:
    """Split a path into the names to walk, or None where it names nothing (empty, `..`, NUL, too long).

    Absolute and relative paths give the same names: the caller says where the walk begins.
    """
    return _names(path) or None


def beneath(root: str, path: str) -> tuple[str, ...] | None:
    """Split an absolute path into the names to walk from `root`, or None where it does not lie beneath it.

    Beneath a root that is relative, or that leads through `..`, lies nothing: it can't be compared by name.
    """
    top, names = _names(root), _names(path)
    if top is None or names is None or not root.startswith("/") or names[: len(top)] != top:
        return None
    return names[len(top) :] or None


def _names(path: str) -> tuple[str, ...] | None:
    if len(path) > MAX_PATH_BYTES or "\0" in path:
        return None
    names = tuple(name for name in path.split("/") if name not in {"", "."})
    return None if ".." in names or len(names) > MAX_PATH_DEPTH else names
