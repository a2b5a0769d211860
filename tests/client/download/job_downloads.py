"""Download jobs from an async test: clients, blocking calls in threads, contents of directories."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from jobsvc.client import Client, Downloaded
from tests.conftest import MakeJob, put
from tests.programs.service_runner import Service


def client(service: Service, port: int | None = None, **options: Any) -> Client:
    """Return a client of a service, or of a proxy at `port` in front of it."""
    return Client(f"http://127.0.0.1:{port or service.port}", service.token, **{"retries": 3, **options})


async def download(
    service: Service, to: Path | str, *, port: int | None = None, retries: int = 3, **options: Any
) -> list[Downloaded]:
    """Download job-1."""
    with client(service, port, retries=retries) as own:
        return await asyncio.to_thread(own.download, "job-1", to, **options)


def content(directory: Path) -> dict[str, bytes]:
    """Return the bytes of each file below a directory."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def names(directory: Path, pattern: str = "*") -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in directory.glob(pattern))


def make_sequence(make_job: MakeJob, count: int) -> dict[str, bytes]:
    """Write a job with `count` frames; return them by name."""
    frames = {f"beauty.{number:04}.exr": os.urandom(1000 + number) for number in range(1, count + 1)}
    job = make_job(
        status="completed",
        outputs=[{"name": "beauty", "role": "main", "kind": "sequence", "path": "frames/beauty.####.exr"}],
    )
    for name, data in frames.items():
        put(job / "frames" / name, data)
    return frames


def make_two_outputs(make_job: MakeJob) -> dict[str, bytes]:
    """Write a job with a film and a directory; return the files by output and path."""
    files = {
        "film/title.mp4": os.urandom(50_000),
        "notes/a/deep/note.txt": b"note",
        "notes/empty.txt": b"",
        "notes/\u00fcber.txt": b"over",
    }
    job = make_job(
        status="completed",
        outputs=[
            {"name": "film", "role": "main", "kind": "file", "path": "out/title.mp4"},
            {"name": "notes", "role": "data", "kind": "directory", "path": "out/notes"},
        ],
    )
    for name, data in files.items():
        put(job / "out" / name.removeprefix("film/"), data)
    return files
