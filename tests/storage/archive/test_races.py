"""Only files of the outputs are listed and sent, whatever happens to their paths meanwhile."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from jobsvc.storage.archive.archive_sender import ArchiveSender
from jobsvc.storage.archive.lister import list_files
from jobsvc.storage.archive.output_source import JobOutputs
from jobsvc.storage.archive.tar import tar_layout
from jobsvc.storage.jobs.reader import JobsRoot
from tests.storage.archive.trees import run, write_files

SECRET: Final = b"secret"
ATTEMPTS: Final = int(os.environ.get("RACE_ATTEMPTS", "1000"))
OUTPUTS: Final = [
    {"name": "film", "path": "out/film.mp4"},
    {"name": "beauty", "path": "out/frames/beauty.####.exr"},
    {"name": "all", "path": "out/tree/"},
]
SWAPPED: Final = [
    "out",
    "out/film.mp4",
    "out/frames",
    "out/frames/beauty.0002.exr",
    "out/tree/a",
    "out/tree/a/b",
]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job, and beside it files of the same names that are secret."""
    names = ["out/film.mp4", *[f"out/frames/beauty.{frame:04d}.exr" for frame in range(1, 5)]]
    names += ["out/tree/a/b/c", "out/tree/a/x", "out/tree/y"]
    record = {"status": "completed", "owner": "acme", "outputPath": "out/film.mp4", "outputs": OUTPUTS}
    write_files(tmp_path / "jobs/job", dict.fromkeys(names, b"public"))
    write_files(tmp_path / "jobs/job", {"status.json": json.dumps(record).encode()})
    write_files(tmp_path / "elsewhere", dict.fromkeys(names, SECRET))
    return tmp_path / "jobs/job"


@contextmanager
def swapping(job: Path) -> Iterator[None]:
    """Replace files and directories of a job by links to secret ones and back, in a thread."""
    stop = threading.Event()
    elsewhere = job.parent.parent / "elsewhere"
    links = job.parent.parent / "links"
    links.mkdir()

    def swap() -> None:
        while not stop.is_set():
            for name in SWAPPED:
                kept, link = links / "kept", links / "link"
                link.symlink_to(elsewhere / name)
                (job / name).rename(kept)
                link.rename(job / name)
                (job / name).unlink()
                kept.rename(job / name)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def archive(jobs: JobsRoot) -> bytes:
    """List the outputs of the job and send their archive, as far as it goes."""
    known = jobs.read("job").job
    source = JobOutputs(jobs, known)
    layout = run(tar_layout(run(list_files(known.outputs, source))))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sender = ArchiveSender(layout, source, ours.fileno(), [(0, layout.length)])
        sender.send_slice(0, layout.length)
        sender.close()
        ours.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: theirs.recv(1 << 20), b""))


def test_files_behind_links_are_never_sent(job: Path) -> None:
    jobs = JobsRoot(job.parent)
    assert archive(jobs).count(b"public") == 8
    lengths = set()
    with swapping(job):
        for _ in range(ATTEMPTS):
            with suppress(OSError):  # a name that is there and not found is a fault on network storage
                data = archive(jobs)
                assert SECRET not in data
                lengths.add(len(data))
    assert len(lengths) > 1
