"""How a process of the service's own is run, so that it imports nothing that others may have written."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import jobsvc

CWD: Final = "/"
_PACKAGE_FOLDER: Final = str(Path(jobsvc.__file__).absolute().parents[1])


def command(module: str) -> list[str]:
    """Return the command that runs a module; `-P` keeps the current folder off sys.path."""
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """Return our environment with a PYTHONPATH of this package's folder, then our own absolute entries."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([_PACKAGE_FOLDER, *filter(os.path.isabs, inherited)])
    return os.environ | {"PYTHONPATH": path}
