"""A farm that writes real job directories."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class Farm:
    """Writes job directories as a farm does: to a temporary file, then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)

    def put(self, job_id: str, status: str = "rendering", **keys: Any) -> Path:
        """Create the job, or replace its record."""
        folder = self.root / job_id
        folder.mkdir(exist_ok=True)
        record = {"status": status, "owner": "ann"} | keys
        temporary = folder / ".status.tmp"
        temporary.write_text(json.dumps(record))
        os.utime(temporary, (1, 1))  # stable: it need not be read again
        temporary.rename(folder / "status.json")
        return folder

    def write_unreadable(self, job_id: str, data: bytes = b'{"status": "rend') -> None:
        """Write an invalid record."""
        folder = self.root / job_id
        folder.mkdir(exist_ok=True)
        (folder / "status.json").write_bytes(data)

    def add_non_utf8_name(self, job_id: str) -> None:
        """Create a file in the job directory whose name is not UTF-8."""
        (self.root / job_id / os.fsdecode(b"\xff\xfe")).write_text("")

    def replace_many_times(self, jobs: int, times: int) -> None:
        """Replace the records of `jobs` jobs `times` times, as fast as possible."""
        for attempt in range(times):
            for number in range(jobs):
                folder = f"{self.root}/job-{number}"
                with open(f"{folder}/.tmp", "wb") as temporary:  # noqa: PTH123 - in a hurry
                    temporary.write(b'{"status": "rendering", "owner": "ann", "attempt": %d}' % attempt)
                os.rename(f"{folder}/.tmp", f"{folder}/status.json")  # noqa: PTH104 - likewise

    def remove(self, job_id: str) -> None:
        """Remove the whole job at once, by a rename."""
        gone = self.root.parent / f"gone-{job_id}-{time.monotonic_ns()}"
        (self.root / job_id).rename(gone)


if __name__ == "__main__":  # run as a separate process: in the test's own it would hold the GIL
    Farm(Path(sys.argv[1])).replace_many_times(int(sys.argv[2]), int(sys.argv[3]))
