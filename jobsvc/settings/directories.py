"""Locate the state directory, and check the configured directories.

The state directory and the secrets directory must not be in a directory whose files are served, and must not
contain the jobs root.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.files.users import user_name
from jobsvc.storage.filesystem.reachable import Mounts

ANSWER_TIMEOUT_S: Final = 10.0
"""Seconds in which a configured directory must be listed at startup."""


def default_state_dir() -> Path:
    """Return the default state directory: $JOBSVC_STATE_DIR, or else that of the XDG base directory spec.

    The latter is $XDG_STATE_HOME/jobsvc if the variable is an absolute path, otherwise ~/.local/state/jobsvc.
    Raises ValueError if no home directory is known.
    """
    try:
        if own := os.environ.get("JOBSVC_STATE_DIR"):
            return Path(own).expanduser().absolute()
        base = Path(os.environ.get("XDG_STATE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".local" / "state") / "jobsvc"
    except RuntimeError as exc:
        raise ValueError("is required, because no home directory is known") from exc


def check_readable(folder: Path) -> None:
    """Raise ValueError unless the path is a directory that can be listed within ANSWER_TIMEOUT_S."""
    try:
        _within(ANSWER_TIMEOUT_S, lambda: os.scandir(folder).close())
    except OSError as exc:
        raise ValueError(f"is not a readable directory: {describe(exc)}") from exc


def check_disjoint(private: Path, jobs_root: Path, output_roots: tuple[Path, ...]) -> None:
    """Raise ValueError if the directory is in the jobs root or an output root, or contains the former.

    Symbolic links and bind mounts are followed.
    """
    mounts = Mounts.now()
    if any(mounts.names_through(jobs_root, private)):
        raise ValueError(f"is inside the jobs root {str(jobs_root)!r}")
    if any(mounts.names_through(private, jobs_root)):
        raise ValueError(f"contains the jobs root {str(jobs_root)!r}")
    for folder in output_roots:
        if any(mounts.names_through(folder, private)):
            raise ValueError(
                f"is inside the output root {str(folder)!r}, from which its tokens could be served"
            )


def make_writable(state_dir: Path) -> None:
    """Create the state directory, accessible by its owner only (0700), unless it exists, and write to it.

    Raises ValueError if that fails. A full disk does not prevent the start: failed writes are counted and
    logged later.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=state_dir) as probe:
            probe.write(b"jobsvc")
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT} and state_dir.is_dir():
            return
        raise ValueError(f"cannot be created or written: {describe(exc)}{_remedy(exc)}") from exc


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Run `call` in a thread; raise its OSError, or TimeoutError if it does not return in time.

    A thread that hangs is abandoned; as a daemon thread it does not prevent the process from exiting.
    """
    raised: list[OSError] = []

    def work() -> None:
        try:
            call()
        except OSError as exc:
            raised.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(errno.ETIMEDOUT, f"no response within {seconds:g} s")
    if raised:
        raise raised[0]


def check_writable(state_dir: Path) -> None:
    """Raise ValueError if `make_writable` would certainly fail. Creates and writes nothing."""
    folder = state_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if not folder.is_dir():
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))  # noqa: TRY301 - reported below
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))  # noqa: TRY301 - reported below
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))  # noqa: TRY301 - reported below
    except OSError as exc:
        raise ValueError(f"cannot be created or written: {describe(exc)}{_remedy(exc)}") from exc


def _remedy(exc: OSError) -> str:
    match exc.errno:
        case errno.EACCES | errno.EPERM:
            return f"; the user {user_name(os.geteuid())} needs a directory that they own there"
        case errno.ENOSPC | errno.EDQUOT:
            return "; free disk space there"
        case errno.EROFS:
            return "; use a directory on a writable file system"
        case _:
            return ""
