"""The chunks of a growing log add up to the log; a reset reports another log."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobsvc.domain.status_record import parse_record
from jobsvc.storage.files.safe_open import OpenFile
from jobsvc.storage.jobs.growing_log import LogPosition, LogReset, complete_length, read_from
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.nonblocking.cached_read import read_cached
from jobsvc.storage.sendfile.file_sender import is_changed

JOB = parse_record("job", {"status": "rendering", "owner": "anna"}, 0)
SCRAPS = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"a", b"frame 12", "ä".encode(), "🎬".encode(), b"\xff", b"\xf0\x9f", b"x" * 300]
)
GROWTHS = st.lists(st.lists(SCRAPS, max_size=12).map(b"".join), min_size=1, max_size=8)
LIMITS = st.integers(8, 700)


class Log:
    """A job's log that a test writes, and the way the service opens it."""

    def __init__(self, root: Path) -> None:
        self._root = JobsRoot(root)
        self.path = root / "job" / "render.log"
        self.path.parent.mkdir()
        self.path.touch()

    @contextmanager
    def opened(self) -> Iterator[OpenFile]:
        file = self._root.open_log(JOB)
        try:
            yield file
        finally:
            file.close()

    def append(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)

    def replace(self, data: bytes) -> None:
        temporary = self.path.with_name("new")
        temporary.write_bytes(data)
        temporary.rename(self.path)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@contextmanager
def scratch_log() -> Iterator[Log]:
    with tempfile.TemporaryDirectory() as folder:
        yield Log(Path(folder))


def read_all(
    log: Log, position: LogPosition | None, *, ended: bool = False, limit: int = 64
) -> tuple[list[bytes], LogPosition, LogReset | None]:
    """Read chunks until none follows; fail if a chunk after the first has another generation."""
    chunks: list[bytes] = []
    broken = None
    while True:
        with log.opened() as file:
            chunk = read_from(file, position, ended=ended, limit=limit)
        assert chunk.reset is None or not chunks
        broken, position = broken or chunk.reset, chunk.position
        assert len(chunk.data) <= limit
        if not chunk.data:
            return chunks, position, broken
        chunks.append(chunk.data)


@settings(deadline=None)
@given(growths=GROWTHS, limit=LIMITS)
@example(growths=[b"a\r", b"\nb\r\n"], limit=8)
@example(growths=[b"aaaaaaa\r\nb\n"], limit=8)
@example(growths=["aaaa🎬🎬".encode(), b"\n"], limit=8)
def test_chunks_add_up_to_the_log_and_end_with_lines(growths: list[bytes], limit: int) -> None:
    """Only a line longer than a chunk is split, between characters; an unfinished line waits."""
    with scratch_log() as log:
        position, got = None, b""
        for growth in growths:
            log.append(growth)
            chunks, position, broken = read_all(log, position, limit=limit)
            assert broken is None
            for chunk in chunks:
                assert chunk.endswith((b"\n", b"\r")) or len(chunk) >= limit - 3
            got += b"".join(chunks)
            written = log.path.read_bytes()
            assert written.startswith(got)
            assert b"\n" not in written[len(got) :]
        chunks, _, _ = read_all(log, position, ended=True, limit=limit)
        assert got + b"".join(chunks) == log.path.read_bytes()


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=200), limit=LIMITS)
def test_line_is_split_between_characters(text: str, limit: int) -> None:
    with scratch_log() as log:
        log.append(text.encode() + b"\n")
        chunks, _, _ = read_all(log, None, limit=limit)
        assert "".join(chunk.decode() for chunk in chunks) == text + "\n"


@given(data=st.lists(SCRAPS, max_size=30).map(b"".join), ended=st.booleans(), full=st.booleans())
def test_no_more_than_the_log_is_returned_and_every_complete_line_is(
    data: bytes,
    ended: bool,  # noqa: FBT001 - hypothesis passes by name
    full: bool,  # noqa: FBT001 - likewise
) -> None:
    count = complete_length(data, ended=ended, full=full)
    assert 0 <= count <= len(data)
    if b"\n" in data:
        assert data[:count].endswith((b"\n", b"\r"))
        assert b"\n" not in data[count:]
    elif len(data) > 3 if full else ended:
        assert count > 0 or not data


@settings(deadline=None)
@given(
    first=st.lists(SCRAPS, max_size=12).map(b"".join),
    second=st.lists(SCRAPS, max_size=12).map(b"".join),
    kept=st.integers(0, 4000),
)
def test_truncated_and_rewritten_log_is_a_reset(first: bytes, second: bytes, kept: int) -> None:
    """If the new content starts with both ends as the old did, it continues instead."""
    with scratch_log() as log:
        log.append(first)
        _, position, _ = read_all(log, None, ended=True)
        with log.path.open("r+b") as file:
            file.truncate(min(kept, len(first)))
        log.append(second)
        now = log.path.read_bytes()
        chunks, _, broken = read_all(log, position, ended=True)
        again = now[: len(first)]
        if (again[:256], again[-256:], len(again)) == (first[:256], first[-256:], len(first)):
            assert (b"".join(chunks), broken) == (now[len(first) :], None)
        else:
            assert (b"".join(chunks), broken) == (now, LogReset.TRUNCATED)


def test_replaced_log_is_a_reset(log: Log) -> None:
    log.append(b"one\ntwo\n")
    _, position, _ = read_all(log, None)
    log.replace(b"one\ntwo\nthree\n")
    assert read_all(log, position)[::2] == ([b"one\ntwo\nthree\n"], LogReset.REPLACED)


def test_truncation_of_a_log_of_gigabytes_is_a_reset(log: Log) -> None:
    with log.path.open("wb") as file:
        file.truncate(5 << 30)
    with log.opened() as file:
        position = LogPosition.at(file, 5 << 30)
    log.append(b"end\n")
    assert read_all(log, position)[::2] == ([b"end\n"], None)
    os.truncate(log.path, 100)
    with log.path.open("r+b") as file:
        file.truncate(6 << 30)
        file.seek((5 << 30) - 10)
        file.write(b"other")
    with log.opened() as file:
        assert read_from(file, position, ended=False).reset is LogReset.TRUNCATED


@given(
    inode=st.integers(0, 2**64 - 1), digest=st.binary(min_size=8, max_size=8), offset=st.integers(0, 2**59)
)
def test_position_is_parsed_as_it_was_formatted(inode: int, digest: bytes, offset: int) -> None:
    position = LogPosition(inode, digest, offset)
    assert LogPosition.parse(str(position)) == position


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-f]{1,18}-[0-9a-f]{14,18}:[0-9]{1,20}"))
@example("1-0011223344556677:-1")
@example("1-0011223344556677:01")
@example("01-0011223344556677:1")
@example("1-0011223344556677:5\n")
def test_position_has_only_one_form(text: str) -> None:
    position = LogPosition.parse(text)
    assert position is None or str(position) == text


def test_growth_does_not_change_an_open_log_and_truncation_does(log: Log) -> None:
    log.append(b"line\n" * 100)
    with log.opened() as file:
        log.append(b"more\n")
        assert not is_changed(file)
        assert read_cached(file, 0, 10) == b"line\nline\n"
        os.truncate(log.path, 499)
        assert is_changed(file)
        assert read_cached(file, 0, 10) is None


def test_open_log_truncated_and_grown_past_its_old_end_is_changed(log: Log) -> None:
    log.append(b"attempt 1\n" + b"line\n" * 100)
    with log.opened() as file:
        os.truncate(log.path, 0)
        log.append(b"attempt 2\n" + b"line\n" * 200)
        assert is_changed(file)
