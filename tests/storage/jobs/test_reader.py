"""JobsRoot against real directories: records, versions of them, and the paths that they name."""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.errors import LogMissing, OutputMissing
from jobsvc.domain.job import SYNONYMS, Job, Status
from jobsvc.domain.status_record import BadRecord, parse_record
from jobsvc.domain.timestamp import format_time
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import PathNotFound
from jobsvc.storage.jobs import record_reader
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.root_listing import find_job_directories
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.layout import MAX_PATH_DEPTH, MAX_RECORD_BYTES
from tests.conftest import MakeJob, put


def completed(root: JobsRoot, output_path: str | None, log_path: str | None = None) -> Job:
    """Build a job as any record may have it, without validating its paths."""
    record = {"status": "completed", "owner": root.read("job-1").job.owner}
    return parse_record("job-1", record | {"outputPath": output_path, "logPath": log_path}, 0)


def output_of(root: JobsRoot, job: Job) -> bytes:
    file = root.open_output(job)
    try:
        return os.pread(file.fd, 1 << 20, 0)
    finally:
        file.close()


def bytes_read() -> int:
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


# The listing -----------------------------------------------------------------------------------------


def test_scan_lists_directories_with_job_names_and_counts_the_rest(
    root: JobsRoot, jobs_root: Path, make_job: MakeJob
) -> None:
    make_job("job-1")
    (jobs_root / "no-record").mkdir()
    for ignored in (".hidden", "a b", "lost+found", "ä", "x" * 129):
        (jobs_root / ignored).mkdir()
    os.mkdir(os.fsencode(jobs_root) + b"/job-\xff")  # noqa: PTH102 - pathlib knows no such names
    (jobs_root / "file").write_bytes(b"")
    (jobs_root / "link").symlink_to("job-1")
    (jobs_root / "dangling").symlink_to("nothing")
    os.mkfifo(jobs_root / "fifo")
    found = find_job_directories(jobs_root)
    assert (sorted(found.ids), found.ignored) == (["job-1", "no-record"], 10)


def test_empty_root_is_listed_and_a_missing_one_is_an_error(root: JobsRoot, jobs_root: Path) -> None:
    assert find_job_directories(jobs_root) == ([], 0)
    jobs_root.rmdir()
    with pytest.raises(FileNotFoundError):
        find_job_directories(jobs_root)
    with pytest.raises(FileNotFoundError):
        root.read("job-1")


def test_root_may_be_a_symbolic_link(jobs_root: Path, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(output=b"film")
    (tmp_path / "link").symlink_to(jobs_root)
    linked = JobsRoot(tmp_path / "link")
    assert find_job_directories(linked.path).ids == ["job-1"]
    assert linked.read("job-1").output_version
    assert output_of(linked, linked.read("job-1").job) == b"film"


def test_replaced_root_is_noticed_immediately(
    root: JobsRoot, jobs_root: Path, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(owner="anna")
    assert root.read("job-1").job.owner == "anna"
    jobs_root.rename(tmp_path / "unmounted")
    with pytest.raises(FileNotFoundError):
        root.read("job-1")
    jobs_root.mkdir()
    make_job(owner="bert")
    assert root.read("job-1").job.owner == "bert"


# Records ---------------------------------------------------------------------------------------------


def test_record_is_read_with_its_version_and_the_time_of_the_file(
    root: JobsRoot, make_job: MakeJob, jobs_root: Path
) -> None:
    make_job(progress=12)
    path = jobs_root / "job-1" / "status.json"
    os.utime(path, ns=(0, 1_767_225_600_123_456_789))
    snapshot, status = root.read("job-1"), path.stat()
    assert snapshot.record_version == FileVersion(
        status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )
    assert snapshot.job.updated_at == format_time(1_767_225_600_123_456)
    assert (snapshot.job.id, snapshot.job.progress, snapshot.output_version) == ("job-1", 12, None)


SECONDS = st.integers(-(2**63) + 1, 2**63 - 2)
"""Values of a file system: 64 bits, without both ends, so that each has a value on either side."""
TIMES = st.builds(lambda seconds, parts: seconds * 10**9 + parts, SECONDS, st.integers(0, 10**9 - 1))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1), TIMES, TIMES)
def test_file_version_keeps_any_values(inode: int, size: int, mtime: int, ctime: int) -> None:
    version = FileVersion(inode, size, mtime, ctime)
    assert (version.inode, version.size, version.mtime_ns, version.ctime_ns) == (
        inode,
        size,
        mtime,
        ctime,
    )
    assert version != FileVersion(inode, size, mtime + 1, ctime)
    assert version != FileVersion(inode, size, mtime, ctime - 1)


@pytest.mark.parametrize("seconds", [9_500_000_000, 15_032_385_535, -1, -2_000_000_000])
def test_file_with_an_unusual_timestamp_is_read(
    root: JobsRoot, make_job: MakeJob, jobs_root: Path, seconds: int
) -> None:
    """From 2271, from the last year that ext4 can store, and from before the epoch; other file systems clamp
    some.
    """
    make_job(output=b"film")
    for name in ("status.json", "output/film.mp4"):
        os.utime(jobs_root / "job-1" / name, ns=(0, seconds * 10**9 + 1))
    snapshot = root.read("job-1")
    assert snapshot.record_version.mtime_ns == (jobs_root / "job-1" / "status.json").stat().st_mtime_ns
    assert output_of(root, snapshot.job) == b"film"
    assert root.read("job-1", snapshot) == snapshot


def test_status_aliases_are_used(jobs_root: Path, make_job: MakeJob) -> None:
    make_job(status="paused")
    with pytest.raises(BadRecord):
        JobsRoot(jobs_root).read("job-1")
    aliases = {**SYNONYMS, "paused": Status.QUEUED}
    assert JobsRoot(jobs_root, aliases=aliases).read("job-1").job.details.source_status == "paused"


@pytest.mark.parametrize(
    "job_id", ["", ".", "..", "job-1/", "./job-1", "../jobs/job-1", "/", "a\0", "ä", "x" * 10_000]
)
def test_invalid_job_id_is_not_found_without_a_system_call(
    root: JobsRoot, make_job: MakeJob, job_id: str
) -> None:
    make_job()
    with pytest.raises(PathNotFound):
        root.read(job_id)
    with pytest.raises(OutputMissing):
        root.open_output(replace(root.read("job-1").job, id=job_id, output_path="status.json"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b'{"status": "rend',
        b"[]",
        b"null",
        b'"text"',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"\xef\xbb\xbf" + b'{"status": "queued", "owner": "anna"}',
        '{"status": "queued", "owner": "anna"}'.encode("utf-16"),
        b'{"status": "queued", "owner": "\xff"}',
        b'{"status": "queued", "owner": "\\ud800"}',
        b'{"status": "queued", "owner": "anna", "progress": NaN}',
        b'{"status": "queued", "owner": "anna", "progress": 1e999}',
        b'{"status": "queued", "owner": "anna"} {}',
        b'{"status": "queued"}',
        b'{"status": "queued", "owner": 5}',
        b'{"status": "queued", "owner": "anna", "id": "job-2"}',
        bytes(100),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_invalid_record_is_a_bad_record(root: JobsRoot, jobs_root: Path, data: bytes) -> None:
    (jobs_root / "job-1").mkdir()
    put(jobs_root / "job-1" / "status.json", data)
    with pytest.raises(BadRecord):
        root.read("job-1")


def test_record_may_be_as_large_as_the_limit_and_no_larger(root: JobsRoot, make_job: MakeJob) -> None:
    record = make_job() / "status.json"
    data = record.read_bytes()
    put(record, data.ljust(MAX_RECORD_BYTES))
    assert root.read("job-1").job.owner == "anna"
    put(record, data.ljust(MAX_RECORD_BYTES + 1))
    with pytest.raises(BadRecord, match="larger than 1048576 bytes") as refused:
        root.read("job-1")
    assert refused.value.reason == "too-large"


def test_record_of_50_megabytes_is_refused_unread(root: JobsRoot, make_job: MakeJob) -> None:
    with (make_job() / "status.json").open("r+b") as file:
        file.truncate(50_000_000)
    bytes_read()
    before = bytes_read()
    with pytest.raises(BadRecord, match="larger"):
        root.read("job-1")
    assert bytes_read() - before < 10_000


def test_record_that_grows_past_the_limit_while_it_is_read_is_refused(make_job: MakeJob) -> None:
    path = make_job() / "status.json"
    with path.open("r+b") as file:
        file.truncate(MAX_RECORD_BYTES * 3)
        before = bytes_read()
        with pytest.raises(BadRecord, match="larger"):
            record_reader._read_text(file.fileno(), 100)
    assert bytes_read() - before < MAX_RECORD_BYTES + 10_000


# Versions --------------------------------------------------------------------------------------------


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A clock that only a test advances: `later[0]` nanoseconds after its start."""
    ahead, start = [0], time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: start + ahead[0])
    return ahead


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all reads."""
    sizes: list[int] = []
    pread = os.pread

    def count(fd: int, size: int, start: int) -> bytes:
        sizes.append(size)
        return pread(fd, size, start)

    monkeypatch.setattr(os, "pread", count)
    return sizes


def test_stable_unchanged_record_is_not_read_again(
    root: JobsRoot, make_job: MakeJob, later: list[int], reads: list[int]
) -> None:
    make_job()
    later[0] = 60_000_000_000
    known = root.read("job-1")
    assert known.is_stable
    reads.clear()
    assert root.read("job-1", known) is known
    assert reads == []


@pytest.mark.parametrize("settled", [True, False])
def test_replaced_record_is_read(
    root: JobsRoot, make_job: MakeJob, later: list[int], *, settled: bool
) -> None:
    folder = make_job(owner="anna")
    later[0] = 60_000_000_000 if settled else 0
    known = root.read("job-1")
    assert known.is_stable is settled
    make_job(owner="bert")
    os.utime(folder / "status.json", ns=(0, known.record_version.mtime_ns))
    assert root.read("job-1", known).job.owner == "bert"


def test_change_within_the_timestamp_granularity_is_noticed(
    root: JobsRoot, make_job: MakeJob, later: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal file versions are what a coarse clock and a reused inode give."""
    path = make_job(owner="anna") / "status.json"
    known = root.read("job-1")
    monkeypatch.setattr(FileVersion, "of", lambda _: known.record_version)
    assert not known.is_stable
    path.write_bytes(path.read_bytes().replace(b"anna", b"bert"))
    changed = root.read("job-1", known)
    assert changed.job.owner == "bert"
    later[0] = 60_000_000_000
    assert root.read("job-1", changed).is_stable


def test_record_is_stable_two_seconds_after_its_last_change(
    root: JobsRoot, make_job: MakeJob, later: list[int]
) -> None:
    path = make_job() / "status.json"
    os.utime(path, (0, 0))
    assert not root.read("job-1").is_stable, "ctime counts as well"
    changed = path.stat().st_ctime_ns - time.time_ns()
    later[0] = changed + 1_800_000_000
    assert not root.read("job-1").is_stable
    later[0] = changed + 2_500_000_000
    assert root.read("job-1").is_stable
    os.utime(path, (0, time.time() + 60))
    assert not root.read("job-1").is_stable, "a timestamp in the future proves nothing"


def test_time_is_taken_before_the_bytes_are_read(
    root: JobsRoot, make_job: MakeJob, later: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job()
    pread = os.pread

    def slow(fd: int, size: int, start: int) -> bytes:
        later[0] = 60_000_000_000
        return pread(fd, size, start)

    monkeypatch.setattr(os, "pread", slow)
    assert not root.read("job-1").is_stable


def test_added_or_removed_output_is_noticed_with_an_unchanged_record(
    root: JobsRoot, make_job: MakeJob, later: list[int], reads: list[int]
) -> None:
    folder = make_job(output=b"film")
    later[0] = 60_000_000_000
    first = root.read("job-1")
    assert first.output_version
    reads.clear()
    (folder / "output" / "film.mp4").rename(folder / "output" / "away.mp4")
    second = root.read("job-1", first)
    assert (second.output_version, second.job) == (None, first.job)
    (folder / "output" / "away.mp4").rename(folder / "output" / "film.mp4")
    third = root.read("job-1", second)
    assert third.output_version == FileVersion.of((folder / "output" / "film.mp4").stat())
    assert (third.job, third.record_version) == (first.job, first.record_version)
    assert reads == []


def test_new_version_of_an_output_is_noticed_with_an_unchanged_record(
    root: JobsRoot, make_job: MakeJob, later: list[int], reads: list[int]
) -> None:
    folder = make_job(output=b"film")
    later[0] = 60_000_000_000
    first = root.read("job-1")
    assert root.read("job-1", first) is first
    put(folder / "output" / "film.mp4", b"mlif")
    second = root.read("job-1", first)
    assert (
        second.output_version
        == FileVersion.of((folder / "output" / "film.mp4").stat())
        != first.output_version
    )
    assert second.job is first.job


def test_invalid_or_removed_record_is_not_served_from_the_cache(root: JobsRoot, make_job: MakeJob) -> None:
    folder = make_job()
    known = root.read("job-1")
    put(folder / "status.json", b"{")
    with pytest.raises(BadRecord, match="not JSON") as refused:
        root.read("job-1", known)
    assert refused.value.reason == "not-json"
    (folder / "status.json").unlink()
    with pytest.raises(PathNotFound):
        root.read("job-1", known)


# Paths of a record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "rendering", "failed", "canceled"])
def test_only_a_completed_job_has_an_output(root: JobsRoot, make_job: MakeJob, status: str) -> None:
    make_job(status=status, output=b"half a film")
    assert not root.read("job-1").output_version


@pytest.mark.parametrize(
    "path",
    [
        "output/film.mp4",
        "./output//film.mp4",
        "film.mp4",
        "Sonnenaufgang ä🎬.mp4",
        "x" * 255,
        " ",
        "...",
        "a\\b",
    ],
)
def test_output_is_opened_by_its_relative_path(root: JobsRoot, make_job: MakeJob, path: str) -> None:
    make_job(output=b"film", outputPath=path)
    snapshot = root.read("job-1")
    assert snapshot.output_version
    file = root.open_output(snapshot.job)
    status = os.fstat(file.fd)
    assert (file.version, file.link_count) == (FileVersion.of(status), 1)
    assert file.name == Path(path).name
    assert os.pread(file.fd, 100, 0) == b"film"
    assert not os.get_inheritable(file.fd)
    file.close()


def test_path_is_opened_up_to_the_maximum_depth(root: JobsRoot, make_job: MakeJob) -> None:
    folder = make_job()
    deepest = "/".join("d" * (MAX_PATH_DEPTH - 1))
    put(folder / deepest / "f", b"deep")
    put(folder / deepest / "d" / "f", b"too deep")
    assert output_of(root, completed(root, f"{deepest}/f")) == b"deep"
    with pytest.raises(OutputMissing):
        root.open_output(completed(root, f"{deepest}/d/f"))


@pytest.mark.parametrize(
    "path",
    [
        None, "", ".", "..", "/", "output", "output/", "output/none.mp4", "none/film.mp4", "../../secret",
        "../job-1/output/film.mp4", "output/../output/film.mp4", "output/film.mp4/x", "output/film.mp4\0",
        "\0", "x" * 256, "x" * 5000, "ä" * 200, "a/" * 3000, "~/film.mp4", "$HOME", "output\\film.mp4",
        "output/FILM.mp4",
    ],
    ids=lambda path: repr(path)[:30],
)  # fmt: skip
def test_path_that_names_no_file_of_the_job_is_a_missing_output(
    root: JobsRoot, make_job: MakeJob, tmp_path: Path, path: str | None
) -> None:
    put(tmp_path / "secret", b"secret")
    make_job(output=b"film")
    with pytest.raises(OutputMissing):
        root.open_output(completed(root, path))
    make_job(status="completed", outputPath=path)
    assert not root.read("job-1").output_version


def test_absolute_path_is_valid_only_below_an_output_root(
    jobs_root: Path, make_job: MakeJob, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    put(first / "a" / "film.mp4", b"first")
    put(second / "film.mp4", b"second")
    put(tmp_path / "secret", b"secret")
    put(tmp_path / "first-not" / "secret", b"secret")
    folder = make_job(output=b"inside")
    root = JobsRoot(jobs_root, (first, second))
    assert output_of(root, completed(root, f"{first}/a/film.mp4")) == b"first"
    assert output_of(root, completed(root, f"/{second}//./film.mp4")) == b"second"
    for outside in (
        tmp_path / "secret", first, first / "a", f"{first}/../secret", f"{tmp_path}/first-not/secret",
        folder / "output" / "film.mp4", "/etc/passwd", f"{first}/film.mp4", "/film.mp4", "/a/film.mp4",
    ):  # fmt: skip
        with pytest.raises(OutputMissing):
            root.open_output(completed(root, str(outside)))


def test_output_root_may_be_a_link_but_nothing_below_it(
    jobs_root: Path, make_job: MakeJob, tmp_path: Path
) -> None:
    put(tmp_path / "true" / "film.mp4", b"film")
    (tmp_path / "link").symlink_to("true")
    (tmp_path / "true" / "again").symlink_to(".")
    make_job()
    root = JobsRoot(jobs_root, (tmp_path / "link",))
    assert output_of(root, completed(root, f"{tmp_path}/link/film.mp4")) == b"film"
    for refused in (f"{tmp_path}/true/film.mp4", f"{tmp_path}/link/again/film.mp4"):
        with pytest.raises(OutputMissing):
            root.open_output(completed(root, refused))


@pytest.mark.parametrize("order", [1, -1])
def test_nearest_of_nested_output_roots_is_used(
    jobs_root: Path, make_job: MakeJob, tmp_path: Path, order: int
) -> None:
    """The nearest may be a link, which would not be followed from the other one."""
    put(tmp_path / "true" / "film.mp4", b"film")
    outer = tmp_path / "outer"
    outer.mkdir()
    (outer / "link").symlink_to("../true")
    make_job()
    root = JobsRoot(jobs_root, (outer, outer / "link")[::order])
    assert output_of(root, completed(root, f"{outer}/link/film.mp4")) == b"film"


def test_output_root_may_contain_dot_dot(jobs_root: Path, make_job: MakeJob, tmp_path: Path) -> None:
    put(tmp_path / "out" / "film.mp4", b"film")
    make_job()
    root = JobsRoot(jobs_root, (jobs_root / ".." / "out",))
    assert output_of(root, completed(root, f"{tmp_path}/out/film.mp4")) == b"film"


def test_missing_output_root_is_a_storage_error(jobs_root: Path, make_job: MakeJob, tmp_path: Path) -> None:
    make_job(status="completed", outputPath=f"{tmp_path}/out/film.mp4")
    root = JobsRoot(jobs_root, (tmp_path / "out",))
    with pytest.raises(FileNotFoundError):
        root.read("job-1")


def test_device_is_not_an_output(jobs_root: Path, make_job: MakeJob) -> None:
    make_job(status="completed", outputPath="/dev/zero")
    root = JobsRoot(jobs_root, (Path("/dev"),))
    assert not root.read("job-1").output_version
    with pytest.raises(OutputMissing):
        root.open_output(root.read("job-1").job)


# Logs ------------------------------------------------------------------------------------------------


def test_log_is_render_log_unless_the_record_names_another(root: JobsRoot, make_job: MakeJob) -> None:
    make_job(log=b"one\n")
    assert root.log_tail(root.read("job-1").job) == "one\n"
    make_job(log=b"two\n", logPath="logs/last.txt")
    log = root.open_log(root.read("job-1").job)
    assert (log.name, log.version.size) == ("last.txt", 4)
    log.close()
    assert root.log_tail(root.read("job-1").job) == "two\n"


def test_tail_is_at_most_64_kib_by_default(root: JobsRoot, make_job: MakeJob) -> None:
    make_job(log=b"%015d\n" * 5000 % tuple(range(5000)))
    tail = root.log_tail(root.read("job-1").job)
    assert tail is not None
    assert (len(tail), tail[-16:]) == (65536, "000000000004999\n")
    assert root.log_tail(root.read("job-1").job, 20) == "000000000004999\n"


@pytest.mark.parametrize("path", [None, "", "..", "../secret", "/etc/passwd", "output", "a\0"])
def test_missing_log_has_no_tail(root: JobsRoot, make_job: MakeJob, tmp_path: Path, path: str | None) -> None:
    put(tmp_path / "secret", b"secret")
    (make_job() / "output").mkdir()
    job = completed(root, None, path)
    assert root.log_tail(job) is None
    with pytest.raises(LogMissing):
        root.open_log(job)


def test_log_is_refused_after_the_owner_of_the_job_changed(root: JobsRoot, make_job: MakeJob) -> None:
    """The log may be that of the new job. An unreadable record does not change the owner."""
    folder = make_job(log=b"anna's\n")
    job = root.read("job-1").job
    make_job(log=b"bob's\n", owner="bob")
    assert root.log_tail(job) is None
    put(folder / "status.json", b"{")
    assert root.log_tail(job) == "bob's\n"


def test_unreadable_log_is_a_storage_error(
    root: JobsRoot, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_job(log=b"one\n")
    job = root.read("job-1").job

    def fail(*_: Any) -> bytes:
        raise OSError(errno.EIO, "stand-in for a broken disk")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(OSError, match="broken disk"):
        root.log_tail(job)


def test_equal_snapshots_compare_equal(root: JobsRoot, make_job: MakeJob) -> None:
    make_job(output=b"film")
    one, same = root.read("job-1"), root.read("job-1")
    assert one == same
    assert hash(one) == hash(same)
    assert one.with_job(same.job) == one
    assert one.has_output
    assert one != one.job
    (root.path / "job-1" / "output" / "film.mp4").unlink(missing_ok=True)
    assert root.read("job-1").has_output is (root.read("job-1").output_version is not None)


def test_snapshot_is_consistent(root: JobsRoot, make_job: MakeJob) -> None:
    make_job(output=b"film")
    snapshot = root.read("job-1")
    assert isinstance(snapshot, JobSnapshot)
    make_job(status="failed")
    assert snapshot.job.status is Status.COMPLETED
    with pytest.raises(AttributeError):
        snapshot.output_version = None  # type: ignore[misc] # that is the point


def test_log_directory_of_a_removed_job_has_no_time(root: JobsRoot, make_job: MakeJob) -> None:
    make_job("job-1", log=b"frame 1\n")
    job = root.read("job-1").job
    assert root.log_folder_changed_at(job) == (root.path / "job-1").stat().st_mtime
    shutil.rmtree(root.path / "job-1")
    assert root.log_folder_changed_at(job) is None
