"""A job with a sequence, a directory and a single file, as tests of its outputs need it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from tests.conftest import MakeJob, put

FRAMES: Final = (1001, 1002, 1004)
OUTPUTS: Final[list[dict[str, Any]]] = [
    {"name": "beauty", "path": "output/beauty.####.exr", "role": "main", "frames": "1001-1004"},
    {"name": "passes", "path": "passes/"},
    {"name": "preview", "path": "preview.mp4", "role": "preview"},
]
FILES: Final = {
    **{f"output/beauty.{frame}.exr": f"frame {frame} ".encode() * 600 for frame in FRAMES},
    "passes/depth/z 1.exr": b"depth",
    "passes/müll.txt": b"notes",
    "passes/empty": b"",
    "preview.mp4": hashlib.sha256(b"preview").digest() * 10_000,
}
"""Content by path in the job directory."""
MEMBERS: Final = {
    "beauty/beauty.1001.exr": "output/beauty.1001.exr",
    "beauty/beauty.1002.exr": "output/beauty.1002.exr",
    "beauty/beauty.1004.exr": "output/beauty.1004.exr",
    "passes/depth/z 1.exr": "passes/depth/z 1.exr",
    "passes/empty": "passes/empty",
    "passes/müll.txt": "passes/müll.txt",
    "preview/preview.mp4": "preview.mp4",
}
"""Path in the job directory by path in an archive, in the order of the list."""


def write_files(folder: Path) -> None:
    """Write the files of all outputs, and some that belong to none."""
    for path, content in FILES.items():
        put(folder / path, content)
    put(folder / "output" / "beauty.txt", b"of no output")
    put(folder / "secret.txt", b"of no output")


def render(make_job: MakeJob, job_id: str = "job-1", **record: Any) -> Path:
    """Make a completed job with all outputs and files."""
    folder = make_job(job_id, status="rendering")
    write_files(folder)
    return make_job(job_id, **{"status": "completed", "outputs": OUTPUTS, **record})
