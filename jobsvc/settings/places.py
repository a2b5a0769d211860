"""Where the service's own files live, and whether the folders it was given can serve.

The state folder never lies where clients could be sent its files from, nor around the farm's jobs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def default_state_dir() -> Path:
    """Name the folder of tokens and logs: $JOBSVC_STATE_DIR, else by the XDG base directory specification.

    That is $XDG_STATE_HOME/jobsvc, where the variable holds an absolute path, else ~/.local/state/jobsvc.
    ValueError where not even a home directory is known.
    """
    try:
        if own := os.environ.get("JOBSVC_STATE_DIR"):
            return Path(own).expanduser().absolute()
        base = Path(os.environ.get("XDG_STATE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".local" / "state") / "jobsvc"
    except RuntimeError as wrong:
        raise ValueError("is needed, for there is no home directory to put it into") from wrong


def check_readable(folder: Path) -> None:
    """Raise ValueError unless the path leads to a directory that can be listed."""
    try:
        os.scandir(folder).close()
    except OSError as wrong:
        raise ValueError(f"is no readable directory: {wrong.strerror}") from wrong


def check_apart(state_dir: Path, jobs_root: Path, output_roots: tuple[Path, ...]) -> None:
    """Raise ValueError where the state folder lies within a folder that is served, or around the jobs."""
    try:
        state, root = state_dir.resolve(), jobs_root.resolve()
        served = [folder.resolve() for folder in output_roots]
    except (OSError, RuntimeError) as wrong:
        raise ValueError(f"can't be followed to its end: {wrong}") from wrong
    if state.is_relative_to(root):
        raise ValueError(f"lies inside the jobs root {str(jobs_root)!r}")
    if root.is_relative_to(state):
        raise ValueError(f"contains the jobs root {str(jobs_root)!r}")
    for folder in served:
        if state.is_relative_to(folder):
            raise ValueError(
                f"lies inside the output root {str(folder)!r}, from where its tokens could be sent"
            )


def make_writable(state_dir: Path) -> None:
    """Make the folder for its owner alone (0700), where it is not there; ValueError if that fails."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=state_dir) as probe:
            probe.write(b"jobsvc")
    except OSError as wrong:
        raise ValueError(f"can't be made or written: {wrong.strerror}") from wrong
