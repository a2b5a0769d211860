"""Large records are decoded by a separate process, with the same result as in this process."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import process_time
from timeit import repeat
from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.job import Job
from jobsvc.domain.large_record import split_record
from jobsvc.domain.status_record import BadRecord
from jobsvc.storage.jobs import record_reader
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.record_reader import LARGE_RECORD_BYTES
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.processes import child_command
from jobsvc.storage.processes import record_process as module
from jobsvc.storage.processes.record_process import MAX_WAITING, RecordProcessClient
from tests.conftest import put
from tests.eventually import wait_until

FULL: Final[dict[str, Any]] = {
    "id": "job-1", "status": "done", "owner": "anna", "progress": 41.5, "projectPath": "p", "outputPath": "o",
    "logPath": "l", "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-02T00:00:00+01:00",
    "startedAt": "2026-01-01T01:00:00Z", "completedAt": "2026-01-01T02:00:00Z",
    "estimatedCompletionAt": "2026-01-01T03:00:00Z", "error": "e", "phase": "x",
    "framesDone": 3, "framesTotal": 9, "attempt": 2,
}  # fmt: skip
LARGE: Final = "x" * LARGE_RECORD_BYTES


@pytest.fixture
def record_process() -> Iterator[RecordProcessClient]:
    record_process = RecordProcessClient(socket_timeout=60.0)  # on a busy machine its start takes seconds
    yield record_process
    record_process.close()
    assert record_process.pid is None


def read(root: Path, text: bytes, record_process: RecordProcessClient | None) -> JobSnapshot | str:
    (root / "job-1").mkdir(exist_ok=True)
    put(root / "job-1" / "status.json", text)
    try:
        return JobsRoot(root, record_process=record_process).read("job-1")
    except BadRecord as wrong:
        return str(wrong)


def job_of(root: Path, record_process: RecordProcessClient) -> Job:
    """Read a large, valid record."""
    snapshot = read(root, RECORDS["all-keys"], record_process)
    assert isinstance(snapshot, JobSnapshot)
    return snapshot.job


RECORDS: Final[dict[str, bytes]] = {
    "all-keys": orjson.dumps({**FULL, "metadata": {"text": LARGE}}),
    "unknown-keys": orjson.dumps({**FULL, "more": [LARGE], "metadata": {"a": [{}]}}),
    "large-error": orjson.dumps({**FULL, "error": "\1" * LARGE_RECORD_BYTES}),
    "many-lists": orjson.dumps({**FULL, "metadata": {"a": [[]] * 300_000}}),
    "no-metadata": orjson.dumps({**FULL, "x": LARGE}),
    "metadata-null": orjson.dumps({**FULL, "x": LARGE, "metadata": None}),
    "metadata-number": orjson.dumps({**FULL, "x": LARGE, "metadata": 1}),
    "metadata-list": orjson.dumps({**FULL, "metadata": [LARGE]}),
    "owner-list": orjson.dumps({**FULL, "owner": [LARGE]}),
    "progress-object": orjson.dumps({**FULL, "progress": {"a": LARGE}}),
    "no-owner": orjson.dumps({"status": "done", "x": LARGE}),
    "a-list": orjson.dumps([LARGE]),
    "no-json": b'{"a": ' + LARGE.encode(),
    "not-utf-8": b'{"status": "done", "owner": "anna", "x": "\xff' + LARGE.encode() + b'"}',
    "huge-number": orjson.dumps(FULL)[:-1] + b', "x": "' + LARGE.encode() + b'", "metadata": {"n": 1e400}}',
    "twice": orjson.dumps(FULL)[:-1]
    + b', "metadata": {"a":1}, "metadata": {"b": "'
    + LARGE.encode()
    + b'"}}',
    "lines": orjson.dumps({**FULL, "metadata": {"a": [LARGE]}}, option=orjson.OPT_INDENT_2),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_large_record_is_read(kind: str, jobs_root: Path, record_process: RecordProcessClient) -> None:
    here = read(jobs_root, RECORDS[kind], None)
    there = read(jobs_root, RECORDS[kind], record_process)
    assert record_process.pid is not None
    if isinstance(here, JobSnapshot):
        assert isinstance(there, JobSnapshot)
        assert there.job == here.job
        assert there.job.metadata_json == here.job.metadata_json
    else:
        assert there == here


@given(st.dictionaries(st.sampled_from([*FULL, "metadata", "other"]), st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)))  # fmt: skip
def test_condensed_record_has_the_same_known_members(record: dict[str, Any]) -> None:
    text = orjson.dumps(record)
    small, metadata = split_record(text)
    found = orjson.loads(small)
    for key, value in record.items():
        if key == "other":
            assert key not in found
        elif isinstance(value, dict | list):
            assert found[key] == type(value)()
        else:
            assert found[key] == orjson.loads(orjson.dumps(value))
    if isinstance(record.get("metadata"), dict):
        assert metadata is not None
        assert orjson.loads(metadata) == orjson.loads(orjson.dumps(record["metadata"]))
    else:
        assert metadata is None


def test_small_record_starts_no_process(jobs_root: Path, record_process: RecordProcessClient) -> None:
    assert isinstance(read(jobs_root, orjson.dumps(FULL), record_process), JobSnapshot)
    assert record_process.pid is None


def test_killed_process_is_restarted(jobs_root: Path, record_process: RecordProcessClient) -> None:
    first = job_of(jobs_root, record_process)
    killed = record_process.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert job_of(jobs_root, record_process) == first
    assert job_of(jobs_root, record_process) == first
    assert record_process.pid not in {None, killed}


def test_hanging_process_is_abandoned(jobs_root: Path) -> None:
    record_process = RecordProcessClient(socket_timeout=60.0)
    try:
        first = job_of(jobs_root, record_process)
        pid = record_process.pid
        assert pid is not None
        assert record_process._socket is not None
        record_process._socket.settimeout(0.5)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(OSError, match="does not respond"):
            job_of(jobs_root, record_process)
        assert record_process.pid is None
        assert job_of(jobs_root, record_process) == first
    finally:
        record_process.close()


@pytest.fixture
def no_large_record_is_decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_text: bytes) -> object:
        raise AssertionError

    monkeypatch.setattr(record_reader, "decode_record", refuse)
    monkeypatch.setattr(module, "split_record", refuse)


@pytest.mark.parametrize(
    "command",
    [
        ["/nowhere/python"],
        ["true"],
        ["sh", "-c", f"head -c {len(RECORDS['all-keys']) + 4} >/dev/null"],
    ],
)
@pytest.mark.usefixtures("no_large_record_is_decoded_here")
def test_large_record_is_a_storage_error_without_a_process(
    command: list[str], jobs_root: Path, record_process: RecordProcessClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(child_command, "command", lambda _module: command)
        with pytest.raises(OSError, match="does not respond") as fault:
            job_of(jobs_root, record_process)
    assert (type(fault.value), fault.value.errno) == (OSError, errno.EIO)
    assert record_process.pid is None
    assert job_of(jobs_root, record_process).owner == "anna"


@pytest.mark.usefixtures("no_large_record_is_decoded_here")
def test_large_record_is_a_storage_error_if_others_take_too_long(
    jobs_root: Path, record_process: RecordProcessClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.01)
    with record_process._lock, pytest.raises(OSError, match="at the same time") as fault:
        job_of(jobs_root, record_process)
    assert fault.value.errno == errno.EBUSY
    assert job_of(jobs_root, record_process).owner == "anna"


@pytest.mark.usefixtures("no_large_record_is_decoded_here")
def test_only_some_threads_wait_for_the_process(
    jobs_root: Path, record_process: RecordProcessClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 30.0)
    first = job_of(jobs_root, record_process)
    root = JobsRoot(jobs_root, record_process=record_process)
    with ThreadPoolExecutor(1 + MAX_WAITING) as threads:
        with record_process._lock:
            waiting = [threads.submit(root.read, "job-1") for _ in range(1 + MAX_WAITING)]
            wait_until(lambda: not record_process._slots._value)
            for refused in (lambda: root.read("job-1"), lambda: record_process.split(RECORDS["all-keys"])):
                with pytest.raises(OSError, match="at the same time") as fault:
                    refused()
                assert fault.value.errno == errno.EBUSY
        assert [each.result(60).job for each in waiting] == [first] * (1 + MAX_WAITING)
    assert root.read("job-1").job == first


def test_process_ends_on_close(jobs_root: Path) -> None:
    record_process = RecordProcessClient(socket_timeout=60.0)
    read(jobs_root, RECORDS["all-keys"], record_process)
    pid = record_process.pid
    assert pid is not None
    record_process.close()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    with pytest.raises(OSError, match="stopping"):
        job_of(jobs_root, record_process)
    assert record_process.pid is None


def cost_of(text: bytes) -> float:
    """Return the CPU seconds that a record takes, the minimum of ten runs."""
    return min(repeat(lambda: split_record(text), timer=process_time, repeat=10, number=1))


LISTS: Final = b"[" + b"[]," * 100_000 + b"[]]"
COSTLY: Final[dict[str, bytes]] = {
    "deep": b'{"x": "\\u0061", "metadata": {"a": ' + b"[" * 9 + LISTS + b"]" * 9 + b"}}",
    "number-too-large": b'{"metadata": {"n": 1e400, "a": ' + b"[" * 9 + LISTS + b"]" * 9 + b"}}",
    "many-members": b"{" + b'"":0,' * 60_000 + b'"metadata": {"n": 1e400}}',
}


@pytest.mark.parametrize("kind", COSTLY)
def test_records_of_one_size_cost_about_the_same(kind: str) -> None:
    assert cost_of(COSTLY[kind]) < 3 * cost_of(b'{"metadata": {"a": ' + LISTS + b"}}")
