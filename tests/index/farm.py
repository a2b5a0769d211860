"""A farm that writes real job directories, and a condition that is waited for."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Farm:
    """Writes job directories as a farm does: beside, then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)

    def put(self, job_id: str, status: str = "rendering", **keys: Any) -> Path:
        """Make the job, or replace its record."""
        folder = self.root / job_id
        folder.mkdir(exist_ok=True)
        record = {"status": status, "owner": "ann"} | keys
        beside = folder / ".status.tmp"
        beside.write_text(json.dumps(record))
        os.utime(beside, (1, 1))  # settled: the next look need not read it again
        beside.rename(folder / "status.json")
        return folder

    def spoil(self, job_id: str, data: bytes = b'{"status": "rend') -> None:
        """Leave a record that can't be read."""
        folder = self.root / job_id
        folder.mkdir(exist_ok=True)
        (folder / "status.json").write_bytes(data)

    def remove(self, job_id: str) -> None:
        """Take the whole job away at once."""
        gone = self.root.parent / f"gone-{job_id}-{time.monotonic_ns()}"
        (self.root / job_id).rename(gone)


async def until(condition: Callable[[], Any], deadline: float = 5.0) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.005)
