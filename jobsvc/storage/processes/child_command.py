"""Build the command and environment of a child process that imports no code from untrusted directories."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import jobsvc

CWD: Final = "/"
_PACKAGE_FOLDER: Final = str(Path(jobsvc.__file__).absolute().parents[1])


def command(module: str) -> list[str]:
    """Return the command that runs a module; `-P` keeps the current directory off sys.path."""
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """Return the current environment with this package's directory before PYTHONPATH's absolute entries."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([_PACKAGE_FOLDER, *filter(os.path.isabs, inherited)])
    return os.environ | {"PYTHONPATH": path}
