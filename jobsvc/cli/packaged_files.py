"""Find directories that are beside the package in a checkout, and in it if it is installed from a wheel."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click


def packaged_directory(name: str) -> Path:
    """Return the directory of this name. Raises ClickException if it is missing."""
    package = Path(str(files("jobsvc")))
    candidates = [folder / name for folder in (package, package.parent)]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise click.ClickException(f"The files are neither in {candidates[0]} nor in {candidates[1]}.")
