"""Define the names of files on disk, which names are job ids, and which paths can be opened. Pure.

Job directory format 1: JOBS_ROOT/<job-id>/{status.json, render.log, output/...}.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

STATUS_FILE: Final = "status.json"
DEFAULT_LOG: Final = "render.log"

MAX_RECORD_BYTES: Final = 1 << 20
"""Maximum size of status.json, in bytes."""

TOKENS_FILE: Final = "tokens.json"
TOKEN_LABELS_FILE: Final = "token-labels.json"  # noqa: S105 - a file name
TOKEN_USE_FILE: Final = "token-use.json"  # noqa: S105 - likewise
LINK_KEY_FILE: Final = "link.key"
LINKS_FILE: Final = "links.jsonl"
REVOKED_LINKS_FILE: Final = "revoked-links.json"
SHARED_STATE_PASSWORD_FILE: Final = "shared-state-password"  # noqa: S105 - likewise
DIGESTS_FILE: Final = "digests.jsonl"
DOWNLOADS_FILE: Final = "downloads.jsonl"


def instance_file(name: str, instance: str) -> str:
    """Return the name of a file that only one instance writes: NAME-INSTANCE.jsonl; `name` if it is "".

    Instances with different names can share a state directory. Characters that some file systems do not allow
    are percent-encoded.
    """
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-{quote(instance, safe='@')}{dot}{suffix}" if instance else name


class OutputRoot(NamedTuple):
    """A directory that absolute paths in one owner's records may point into."""

    owner: str
    path: Path


TEMP_PREFIX: Final = ".jobsvc-"
"""Prefix of jobsvc's own temporary and lock files; no job id can start with it."""

MAX_PATH_LENGTH: Final = 4096
"""Maximum length of a path, in characters (limits.h)."""

MAX_PATH_DEPTH: Final = 64
"""Maximum number of components of a path: each holds a descriptor while the path is opened."""

JOB_ID_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_JOB_ID: Final = re.compile(JOB_ID_PATTERN, re.ASCII)


def is_job_id(name: str) -> bool:
    """Return whether a directory with this name is a job directory; all other names are ignored."""
    return _JOB_ID.fullmatch(name) is not None


@lru_cache(maxsize=4096)
def components(path: str) -> tuple[str, ...] | None:
    """Split a path into its components; None if it is empty, too long, or contains `..` or a NUL character.

    An absolute and a relative path give the same components: the caller decides where to start.
    """
    return _names(path) or None


def beneath(root: str, path: str) -> tuple[str, ...] | None:
    """Split an absolute path into its components below `root`; None if it is not below `root`.

    Also None if `root` is relative or contains `..`, because it cannot be compared by name.
    """
    top, names = _names(root), _names(path)
    if top is None or names is None or not root.startswith("/") or names[: len(top)] != top:
        return None
    return names[len(top) :] or None


def _names(path: str) -> tuple[str, ...] | None:
    if len(path) > MAX_PATH_LENGTH or "\0" in path:
        return None
    names = tuple(name for name in path.split("/") if name not in {"", "."})
    return None if ".." in names or len(names) > MAX_PATH_DEPTH else names
