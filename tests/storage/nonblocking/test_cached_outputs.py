"""Opening without a thread: only what is in memory, and only what is unchanged."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.filesystem.mounts import file_system
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.nonblocking import cached_outputs, descriptor_cache, openat2
from jobsvc.storage.nonblocking.cached_outputs import CachedOutputs
from tests.checks import open_fds
from tests.index.job_dirs import Farm

FILM = b"a film" * 1000


class Scene:
    """A completed job that was read often enough to be stable and in memory."""

    def __init__(self, root: Path) -> None:
        self.farm = Farm(root)
        self.folder = self.farm.put("a", "completed", outputPath="output/film.mp4")
        self.output = self.folder / "output" / "film.mp4"
        self.output.parent.mkdir()
        self.output.write_bytes(FILM)
        self.root = JobsRoot(root)
        self.cached = CachedOutputs(root, root.stat().st_dev)

    def known(self) -> JobSnapshot:
        """Return the snapshot as of a while later: the record's time proves its content."""
        snapshot = self.root.read("a")
        return JobSnapshot(
            snapshot.job, snapshot.record_version, output=snapshot.output_version, is_stable=True
        )

    def found(self, known: JobSnapshot | None = None) -> bytes | None:
        file = self.cached.open_output(known or self.known())
        if file is None:
            return None
        try:
            return os.pread(file.fd, len(FILM) + 1, 0)
        finally:
            file.close()

    def age(self) -> None:
        """Wait until a change shows in a timestamp: a file system's clock ticks every few milliseconds."""
        newest = max(path.stat().st_ctime_ns for path in (self.output, self.output.parent))
        probe = self.folder.parent.parent / "clock"
        probe.touch()
        while probe.stat().st_ctime_ns <= newest:
            probe.touch()


@pytest.fixture(params=["opened", "kept"])
def scene(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Once without an earlier request, and once with the output still cached from one."""
    scene = Scene(tmp_path / "jobs")
    if request.param == "kept":
        monkeypatch.setattr(descriptor_cache, "TIMESTAMP_GRANULARITY_NS", 0)
        scene.age()
    if scene.found() is None:
        pytest.skip(f"no RESOLVE_CACHED here, or none on {file_system(tmp_path)}")
    assert bool(open_fds.open_paths(scene.folder)) is (request.param == "kept")
    yield scene
    scene.cached.close()
    assert not open_fds.open_paths(scene.folder)


def test_same_file_is_opened_as_by_the_reader(scene: Scene) -> None:
    known = scene.known()
    _, theirs = scene.root.read_and_open("a", known)
    ours = scene.cached.open_output(known)
    assert theirs is not None
    assert ours is not None
    assert (ours.version, ours.name, ours.link_count) == (theirs.version, theirs.name, theirs.link_count)
    ours.close()
    theirs.close()


def replaced_record(scene: Scene) -> None:
    scene.farm.put("a", "completed", outputPath="output/film.mp4", attempt=2)


def record_gone(scene: Scene) -> None:
    (scene.folder / "status.json").unlink()


def job_gone(scene: Scene) -> None:
    scene.farm.remove("a")


def output_gone(scene: Scene) -> None:
    scene.output.unlink()


def output_is_a_link(scene: Scene) -> None:
    scene.output.rename(scene.output.with_name("other"))
    scene.output.symlink_to("other")


def output_is_a_folder(scene: Scene) -> None:
    scene.output.unlink()
    scene.output.mkdir()


def output_is_a_pipe(scene: Scene) -> None:
    scene.output.unlink()
    os.mkfifo(scene.output)


def folder_is_a_link(scene: Scene) -> None:
    scene.output.parent.rename(scene.folder / "renders")
    scene.output.parent.symlink_to("renders")


def folder_is_another(scene: Scene) -> None:
    scene.output.parent.rename(scene.folder / "renders")
    scene.output.parent.mkdir()


def job_is_another(scene: Scene) -> None:
    scene.folder.rename(scene.folder.with_name("b"))
    shutil.copytree(scene.folder.with_name("b"), scene.folder)


def job_is_a_link(scene: Scene) -> None:
    scene.folder.rename(scene.folder.with_name("b"))
    scene.folder.symlink_to("b")


def record_is_a_link(scene: Scene) -> None:
    record = scene.folder / "status.json"
    record.rename(scene.folder / "kept.json")
    record.symlink_to("kept.json")


@pytest.mark.parametrize(
    "change",
    [
        replaced_record, record_gone, job_gone, output_gone, output_is_a_link, output_is_a_folder,
        output_is_a_pipe, folder_is_a_link, folder_is_another, job_is_another, job_is_a_link,
        record_is_a_link,
    ],
)  # fmt: skip
def test_changed_job_is_left_to_the_reader(scene: Scene, change: Callable[[Scene], None]) -> None:
    known = scene.known()
    change(scene)
    assert scene.found(known) is None
    assert not scene.cached.is_unchanged_nowait(known)


@pytest.mark.parametrize("path", ["/etc/hostname", "../a/output/film.mp4", "", "output/../output/film.mp4"])
def test_path_that_leads_elsewhere_is_left_to_the_reader(scene: Scene, path: str) -> None:
    scene.farm.put("a", "completed", outputPath=path)
    assert scene.found() is None


@pytest.mark.parametrize("status", ["queued", "rendering", "failed", "canceled"])
def test_unfinished_job_has_nothing_to_open(scene: Scene, status: str) -> None:
    scene.farm.put("a", status, outputPath="output/film.mp4")
    assert scene.found() is None


def test_record_that_may_have_changed_within_the_timestamp_granularity_is_read(scene: Scene) -> None:
    known = scene.known()
    unsettled = JobSnapshot(known.job, known.record_version, output=known.output_version, is_stable=False)
    assert scene.found(unsettled) is None


def test_other_device_is_left_to_the_reader(scene: Scene) -> None:
    scene.cached.close()
    scene.cached = CachedOutputs(scene.folder.parent, scene.folder.stat().st_dev + 1)
    assert scene.found() is None
    assert not scene.cached.is_unchanged_nowait(scene.known())


def test_job_is_unchanged_until_its_record_is_replaced(scene: Scene) -> None:
    for status in ("queued", "rendering", "failed", "canceled"):
        scene.farm.put("a", status, outputPath="output/film.mp4")
        known = scene.known()
        assert scene.cached.is_unchanged_nowait(known)
        scene.farm.put("a", status, outputPath="output/film.mp4", attempt=2)
        assert not scene.cached.is_unchanged_nowait(known)


def test_completed_job_is_unchanged_until_its_output_changes(scene: Scene) -> None:
    known = scene.known()
    assert scene.cached.is_unchanged_nowait(known)
    with scene.output.open("ab") as file:
        file.write(b"more")
    assert not scene.cached.is_unchanged_nowait(known)


def test_missing_output_is_left_to_the_reader(scene: Scene) -> None:
    scene.output.unlink()
    known = scene.known()
    assert known.output_version is None
    assert not scene.cached.is_unchanged_nowait(known)


@pytest.mark.parametrize("path", ["/etc/hostname", "../a/output/film.mp4", "output/../output/film.mp4"])
def test_check_of_a_path_that_leads_elsewhere_is_left_to_the_reader(scene: Scene, path: str) -> None:
    film = scene.known()
    scene.farm.put("a", "completed", outputPath=path)
    known = scene.known()
    assert not scene.cached.is_unchanged_nowait(
        JobSnapshot(known.job, known.record_version, film.output_version, is_stable=True)
    )


def test_absolute_path_is_not_resolved_in_the_job_directory(scene: Scene) -> None:
    within = scene.folder / "elsewhere" / "film.mp4"
    within.parent.mkdir()
    within.hardlink_to(scene.output)
    film = scene.known()
    scene.farm.put("a", "completed", outputPath="/elsewhere/film.mp4")
    known = scene.known()
    assert not scene.cached.is_unchanged_nowait(
        JobSnapshot(known.job, known.record_version, film.output_version, is_stable=True)
    )


def test_unstable_snapshot_has_to_be_read_again(
    scene: Scene,
) -> None:
    known = scene.known()
    assert not scene.cached.is_unchanged_nowait(
        JobSnapshot(known.job, known.record_version, known.output_version, is_stable=False)
    )


def test_replaced_output_is_opened_in_its_new_version(scene: Scene) -> None:
    known = scene.known()
    new_file = scene.output.with_name("new")
    new_file.write_bytes(b"another")
    new_file.replace(scene.output)
    assert scene.found(known) == b"another"


def test_output_written_in_place_is_another_version(scene: Scene) -> None:
    known = scene.known()
    before = scene.cached.open_output(known)
    assert before is not None
    before.close()
    with scene.output.open("r+b") as file:
        file.write(b"A")
    after = scene.cached.open_output(known)
    assert after is not None
    after.close()
    assert after.version == FileVersion.of(scene.output.stat()) != before.version


def test_replaced_output_directory_is_used(scene: Scene) -> None:
    known = scene.known()
    folder_is_another(scene)
    scene.output.write_bytes(b"another")
    assert scene.found(known) == b"another"


def test_opened_file_is_independent_of_the_cache(scene: Scene) -> None:
    known = scene.known()
    first, second = scene.cached.open_output(known), scene.cached.open_output(known)
    assert first is not None
    assert second is not None
    first.close()
    scene.cached.close()
    assert os.pread(second.fd, len(FILM), 0) == FILM
    second.close()


def test_output_is_evicted_at_the_second_sweep_after_its_use(scene: Scene) -> None:
    kept_for = 0
    while open_fds.open_paths(scene.folder):
        scene.cached.evict_idle()
        kept_for += 1
    assert kept_for in {0, 2}


def test_number_of_cached_outputs_is_limited(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptor_cache, "MAX_CACHED_FILES", 1)
    other = scene.farm.put("b", "completed", outputPath="film.mp4")
    (other / "film.mp4").write_bytes(FILM)
    scene.age()
    snapshot = scene.root.read("b")
    file = scene.cached.open_output(
        JobSnapshot(snapshot.job, snapshot.record_version, snapshot.output_version, is_stable=True)
    )
    assert file is not None
    file.close()
    assert not open_fds.open_paths(scene.folder)


def test_output_that_may_change_within_the_timestamp_granularity_is_not_cached(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptor_cache, "TIMESTAMP_GRANULARITY_NS", 3_600_000_000_000)
    scene.cached.close()
    assert scene.found() == FILM
    assert not open_fds.open_paths(scene.folder)


def test_nothing_is_cached_when_descriptors_run_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptor_cache, "TIMESTAMP_GRANULARITY_NS", 0)
    scene.age()
    known, before = scene.known(), len(open_fds.open_paths(scene.folder))

    def refused(_fd: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "dup", refused)
    assert scene.found(known) == FILM
    assert len(open_fds.open_paths(scene.folder)) <= before


def test_failing_file_system_is_left_to_the_reader(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    known = scene.known()

    def failed(_fd: int) -> os.stat_result:
        raise OSError(errno.EIO, "the file system is shut down")

    before = len(open_fds.open_paths(scene.folder))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fstat", failed)
        assert scene.found(known) is None
        assert not scene.cached.is_unchanged_nowait(known)
    assert len(open_fds.open_paths(scene.folder)) <= before


def test_error_after_the_record_leaves_the_output_to_the_reader(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, ask, calls = scene.known(), os.fstat, itertools.count()

    def failing(fd: int) -> os.stat_result:
        if next(calls):
            raise OSError(errno.EIO, "the file system is shut down")
        return ask(fd)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fstat", failing)
        assert scene.found(known) is None
    assert not open_fds.open_paths(scene.folder)


def test_kernel_without_openat2_leaves_all_to_the_reader(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = scene.known()
    monkeypatch.setattr(openat2, "_OPENAT2", 100_000)
    assert scene.found(known) is None
    assert not scene.cached.is_unchanged_nowait(known)


def test_uncached_path_is_left_to_the_reader(scene: Scene) -> None:
    known = scene.known()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("2")
    except OSError:
        pytest.skip("only root can have the kernel forget names")
    assert not scene.cached.is_unchanged_nowait(known)
    assert scene.found(known) is None
    scene.root.read("a")
    assert scene.found(known) == FILM


def test_only_local_file_systems_are_opened_without_a_thread(tmp_path: Path) -> None:
    assert (CachedOutputs.of(tmp_path) is not None) == (
        file_system(tmp_path) in cached_outputs.NONBLOCKING_TYPES
    )
    assert CachedOutputs.of(Path("/proc")) is None


def test_no_descriptor_is_left_open(scene: Scene) -> None:
    scene.cached.close()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - they go while one looks
    for change in (output_is_a_folder, replaced_record, job_gone):
        known = scene.known()
        change(scene)
        for _ in range(3):
            assert scene.found(known) is None
        if scene.output.is_dir():
            scene.output.rmdir()
            scene.output.write_bytes(FILM)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - likewise
