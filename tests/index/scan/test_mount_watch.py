"""A file system mounted or unmounted over a job's output is noticed without a request."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

from jobsvc.domain.watch_mode import WatchMode
from jobsvc.index.catalogue import missing_files
from jobsvc.index.job_index import JobIndex
from jobsvc.index.scan.mount_watch import beneath_output_roots, overlap, within_jobs
from jobsvc.index.watch.watch_events import EventKind, WatchEvent
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.filesystem.mounts import mount_point
from jobsvc.storage.jobs.reader import JobsRoot
from tests.eventually import until
from tests.index.job_dirs import Farm
from tests.index.parts import make_index

NOTICED_WITHIN_S: Final = 4.0
"""A missing output is reported after a grace period, of half a second in these tests."""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount"
)


@pytest.mark.parametrize(
    ("point", "events"),
    [
        ("/jobs/a", [(EventKind.NEW, "a")]),
        ("/jobs/a/output", [(EventKind.MOVED, "a/output")]),
        ("/jobs/a/output/deep/er", [(EventKind.MOVED, "a/output")]),
        ("/jobs", []),
        ("/", []),
        ("/jobs-too/a", []),
    ],
)
def test_mount_within_a_job_concerns_that_job(point: str, events: list[WatchEvent]) -> None:
    assert list(within_jobs("/jobs", [point])) == events


@pytest.mark.parametrize(
    ("point", "places"),
    [
        ("/real/out", ["/given"]),
        ("/real", ["/given"]),
        ("/", ["/given"]),
        ("/real/out/show/a", ["/given/show/a"]),
        ("/real/outside", []),
        ("/given/show", []),
    ],
)
def test_mount_below_an_output_root_concerns_jobs_that_name_it(point: str, places: list[str]) -> None:
    assert list(beneath_output_roots([("/real/out", "/given")], [point])) == places


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("/a", "/a", True), ("/a/b", "/a", True), ("/a", "/a/b", True), ("/a", "/ab", False)],
)
def test_paths_overlap_if_one_contains_the_other(one: str, other: str, expected: bool) -> None:  # noqa: FBT001 - a table
    assert overlap(one, other) is expected


def test_escapes_of_a_mount_point_are_decoded() -> None:
    assert mount_point(r"36 25 0:991 / /mnt/two\040words rw - tmpfs none rw") == "/mnt/two words"
    assert mount_point("") == ""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@pytest.fixture(params=[WatchMode.EVENTS, WatchMode.POLL])
async def index(
    request: pytest.FixtureRequest,
    farm: Farm,
    disk: StorageExecutor,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[JobIndex]:
    """An index in each mode; no reconcile runs during a test."""
    monkeypatch.setattr(missing_files, "ABSENCE_GRACE_S", 0.5)
    for job_id, path in (
        ("inside", "output/film.mp4"),
        ("outside", f"{outside}/show/film.mp4"),
        ("other", "x"),
    ):
        farm.put(job_id, "completed", outputPath=path)
    for folder in (farm.root / "inside" / "output", outside / "show"):
        folder.mkdir()
        (folder / "film.mp4").write_bytes(b"film")
    index = make_index(
        disk, JobsRoot(farm.root, [outside]), watch=request.param, poll_interval=0.1, max_age=0.5
    )
    index._reconciler._is_watched = lambda: True
    async with index.running():
        await asyncio.wait_for(index.ready.wait(), 20)
        await until(
            lambda: index.mode is WatchMode.POLL or index.catalogue.entries["inside"].watched_folders, 20
        )
        await until(lambda: all(size(index, job_id) == 4 for job_id in ("inside", "outside")))
        yield index


@pytest.fixture(params=["inside", "outside"])
def folder(request: pytest.FixtureRequest, farm: Farm, outside: Path) -> Path:
    """The directory of a job's output, in the job directory or in an output root."""
    return farm.root / "inside" / "output" if request.param == "inside" else outside / "show"


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[list[Path]]:
    """Mount points that are unmounted at the end."""
    points: list[Path] = []
    yield points
    for point in points:
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def job_of(folder: Path) -> str:
    return "inside" if folder.name == "output" else "outside"


def size(index: JobIndex, job_id: str) -> int | None:
    entry = index.catalogue.get(job_id)
    output = None if entry is None else entry.snapshot.output_version
    return None if output is None else output.size


def mount(points: list[Path], *words: str | Path) -> None:
    points.append(Path(words[-1]))
    if subprocess.call(["mount", *words]):
        pytest.skip("mounting is not allowed here")


async def test_mount_over_an_output_directory_and_its_unmount_are_noticed(
    index: JobIndex, folder: Path, mounts: list[Path]
) -> None:
    await asyncio.to_thread(mount, mounts, "-t", "tmpfs", "none", folder)
    await until(lambda: size(index, job_of(folder)) is None, NOTICED_WITHIN_S)
    await asyncio.to_thread(subprocess.check_call, ["umount", folder])
    await until(lambda: size(index, job_of(folder)) == 4, NOTICED_WITHIN_S)


async def test_file_mounted_over_an_output_is_noticed(
    index: JobIndex, folder: Path, mounts: list[Path], tmp_path: Path
) -> None:
    another = tmp_path / "another.mp4"
    await asyncio.to_thread(another.write_bytes, b"another film")
    await asyncio.to_thread(mount, mounts, "--bind", another, folder / "film.mp4")
    await until(lambda: size(index, job_of(folder)) == 12, NOTICED_WITHIN_S)
    assert (await index.freshness.get(job_of(folder))).snapshot.output_version is not None


async def test_changes_in_a_directory_that_was_mounted_over_are_noticed(
    index: JobIndex, folder: Path, mounts: list[Path]
) -> None:
    await asyncio.to_thread(mount, mounts, "-t", "tmpfs", "none", folder)
    await until(lambda: size(index, job_of(folder)) is None, NOTICED_WITHIN_S)
    await asyncio.to_thread((folder / "film.mp4").write_bytes, b"mounted film")
    await until(lambda: size(index, job_of(folder)) == 12, NOTICED_WITHIN_S)


async def test_jobs_not_concerned_by_a_mount_are_not_read(
    index: JobIndex, farm: Farm, mounts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    hinted = index._watch_events._refresh_now

    def record_events(job_ids: Iterable[str]) -> None:
        looked_at.extend(ids := list(job_ids))
        hinted(ids)

    monkeypatch.setattr(index._watch_events, "_refresh_now", record_events)
    await asyncio.to_thread(mount, mounts, "-t", "tmpfs", "none", farm.root / "inside" / "output")
    await until(lambda: size(index, "inside") is None, NOTICED_WITHIN_S)
    assert set(looked_at) == {"inside"}
