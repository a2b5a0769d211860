"""Files that this process has open, from /proc (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path


def open_paths(beneath: Path) -> list[str]:
    """List the open files, directories and FIFOs below a directory, including removed ones."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, not paths
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - the link's text, whatever it is
        except FileNotFoundError:  # the one that listed the folder
            continue
        if target.startswith(f"{beneath}/") or target in {str(beneath), f"{beneath} (deleted)"}:
            targets.append(target)
    return targets
