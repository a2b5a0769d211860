"""Generates job directories in bulk: real records, with a realistic mix of states."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson

OWNER: Final = "farm"
MIX: Final = (("completed", 90.0), ("failed", 4.0), ("canceled", 1.0), ("rendering", 1.0), ("queued", 4.0))
"""Percent of jobs in each state."""
STABLE_AFTER_S: Final = 2.1
"""Seconds after which a record is stable, so that it is not read again."""
_BLOCK: Final = 1 << 20


@contextmanager
def scratch(name: str, parent: str | None = None) -> Iterator[Path]:
    """Create a directory for a benchmark, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"jobsvc-bench-{name}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def record(job_id: str, status: str, **more: object) -> bytes:
    """Return what a farm's status.json contains for a job."""
    document: dict[str, object] = {
        "id": job_id,
        "status": status,
        "owner": OWNER,
        "projectPath": f"projects/aurora/{job_id}.blend",
        "createdAt": "2026-11-20T09:12:30Z",
        "updatedAt": "2026-11-20T09:16:31Z",
        "startedAt": "2026-11-20T09:14:07Z",
        "framesDone": 100 if status == "completed" else 37,
        "framesTotal": 100,
        "attempt": 1,
        "metadata": {"show": "aurora", "shot": "op_0010", "worker": "render-03", "fps": 25},
    }
    if status == "completed":
        document |= {"outputPath": "output/film.mp4", "completedAt": "2026-11-20T09:16:31Z"}
    if status == "failed":
        document |= {"error": "Blender left with exit code 11"}
    return orjson.dumps(document | more)


def put(root: Path, job_id: str, status: str, **more: object) -> Path:
    """Create a job, or replace its record by a rename; return its directory."""
    folder = root / job_id
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".status.tmp"
    temporary.write_bytes(record(job_id, status, **more))
    temporary.rename(folder / "status.json")
    return folder


def fill(
    root: Path,
    count: int,
    *,
    mix: tuple[tuple[str, float], ...] = MIX,
    vary: Callable[[int], dict[str, object]] = lambda _number: {},
) -> dict[str, list[str]]:
    """Make `count` jobs; a completed one has an output, a failed one a log. Returns the ids by state.

    `vary` gives fields of a job's record by its number.
    """
    root.mkdir(parents=True, exist_ok=True)
    draw = random.Random(count)  # noqa: S311 - no secret
    ids: dict[str, list[str]] = {status: [] for status, _ in mix}
    states = draw.choices([status for status, _ in mix], [share for _, share in mix], k=count)
    for number, status in enumerate(states):
        job_id = f"shot-{number:07d}-{draw.getrandbits(32):08x}"
        _make(str(root / job_id), job_id, status, **vary(number))
        ids[status].append(job_id)
    return ids


def _make(folder: str, job_id: str, status: str, **more: object) -> None:
    """Create a job with as few system calls as possible: there may be a million."""
    os.mkdir(folder)  # noqa: PTH102 - twice as fast
    _write(f"{folder}/status.json", record(job_id, status, **more))
    if status == "completed":
        os.mkdir(f"{folder}/output")  # noqa: PTH102
        _write(f"{folder}/output/film.mp4", b"film")
    elif status == "failed":
        _write(f"{folder}/render.log", b"Fra:37 Mem:512M | Rendering 12 / 64 samples\n" * 40)


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, data)
    os.close(descriptor)


def output(root: Path, job_id: str, size: int) -> Path:
    """Create a completed job with an output of `size` random bytes, all of them in the page cache."""
    path = put(root, job_id, "completed") / "output" / "film.mp4"
    path.parent.mkdir(exist_ok=True)
    block = os.urandom(_BLOCK)
    with path.open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(block[: min(_BLOCK, size - start)])
        file.flush()
        os.fsync(file.fileno())  # otherwise the kernel writes it out in the middle of a round
    warm(path)
    return path


def warm(path: Path) -> None:
    """Read a file once, so that it is in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(_BLOCK):
            pass
