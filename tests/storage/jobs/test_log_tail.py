from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobsvc.storage.files.pread import read_fully
from jobsvc.storage.jobs import log_tail as module
from jobsvc.storage.jobs.log_tail import last_lines, lines_start

PIECES = st.sampled_from(
    [b"\n", b"a", b"frame 12", "ä".encode(), "🎬".encode(), b"\xff", b"\xf0\x9f", b"\x80", b"\r\n"]
)
LOGS = st.lists(PIECES, max_size=40).map(b"".join)


@contextmanager
def opened(data: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()


def tail(data: bytes, limit: int) -> str:
    with opened(data) as fd:
        return last_lines(fd, len(data), limit)


@given(data=LOGS, limit=st.integers(1, 60))
@example(data="🎬🎬".encode(), limit=7)
@example(data=b"long line\n", limit=4)
@example(data=b"\x80" * 20, limit=10)
def test_tail_is_the_last_whole_lines_within_the_limit(data: bytes, limit: int) -> None:
    """Invalid UTF-8 is replaced; only if the last line alone exceeds the limit is its start cut off."""
    text, whole = tail(data, limit), data.decode("utf-8", "replace")
    assert len(text.encode()) <= limit
    assert whole.endswith(text)
    before = whole[: len(whole) - len(text)]
    if before and not before.endswith("\n"):
        assert "\n" not in text[:-1]
    if len(whole.encode()) <= limit:
        assert text == whole


@given(
    lines=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n")), min_size=1),
    limit=st.integers(1, 60),
)
def test_tail_keeps_as_many_lines_as_the_limit_allows(lines: list[str], limit: int) -> None:
    """A last line longer than the limit is kept as far as it fits, except for a character cut in two."""
    whole = "".join(f"{line}\n" for line in lines)
    kept = whole.split("\n")[:-1]
    best = ""
    while kept and len((longer := f"{kept[-1]}\n{best}").encode()) <= limit:
        best = longer
        kept.pop()
    if best:
        assert tail(whole.encode(), limit) == best
    else:
        assert limit - 3 <= len(tail(whole.encode(), limit).encode()) <= limit


def test_empty_log_has_an_empty_tail() -> None:
    assert tail(b"", 100) == ""


def test_line_that_starts_exactly_at_the_limit_is_kept_whole() -> None:
    assert tail(b"one\ntwo\n", 4) == "two\n"
    assert tail(b"one\ntwo\n", 5) == "two\n"
    assert tail(b"one\ntwo\n", 8) == "one\ntwo\n"


def test_replacement_characters_may_push_a_line_over_the_limit() -> None:
    assert tail(b"one\n\xff\xff\n", 7) == "\ufffd\ufffd\n"
    assert tail(b"one\n\xff\xff\n", 8) == "\ufffd\ufffd\n"


def test_log_that_changes_its_size_after_fstat_is_read() -> None:
    with opened(b"one\ntwo\nthree\n") as fd:
        assert last_lines(fd, 8, 4) == "two\n"
        os.ftruncate(fd, 4)
        assert "one\n".endswith(last_lines(fd, 14, 10))
        assert last_lines(fd, 14, 100) == "one\n"


def test_tail_of_a_log_of_gigabytes_reads_no_more_than_that_of_a_small_one(tmp_path: Path) -> None:
    log = tmp_path / "render.log"
    with log.open("wb") as file:
        file.truncate(5 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_inblock
    with log.open("rb") as file:
        assert last_lines(file.fileno(), log.stat().st_size, 1 << 16) == "the end\n"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_inblock - before < 1000


@given(data=st.binary(max_size=100), start=st.integers(0, 120), count=st.integers(0, 120))
def test_read_fully_reads_what_is_there(data: bytes, start: int, count: int) -> None:
    with opened(data) as fd:
        assert read_fully(fd, start, count) == data[start : start + count]


def test_read_fully_continues_after_a_short_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on network file systems and after signals; a regular file here gives no short reads."""
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, start: pread(fd, min(count, 3), start))
    with opened(b"0123456789") as fd:
        assert read_fully(fd, 1, 8) == b"12345678"


@given(data=LOGS, lines=st.integers(0, 12), limit=st.integers(1, 60), block=st.integers(1, 9))
@example(data=b"a\nb", lines=1, limit=60, block=1)
@example(data=b"a\nb\n", lines=1, limit=60, block=2)
@example(data=b"a line\nb\n", lines=2, limit=5, block=2)
@example(data=b"a long line\n", lines=2, limit=5, block=2)
@example(data=b"a line\nb\nc\n", lines=3, limit=4, block=2)
@example(data="x\n\n🎬".encode(), lines=2, limit=5, block=9)
@example(data=b"\nb\nc", lines=3, limit=3, block=9)
def test_offset_of_the_last_lines_is_the_start_of_a_line_within_the_limit(
    data: bytes, lines: int, limit: int, block: int
) -> None:
    """An unfinished last line is a line; only if it is longer than the limit is its start cut off."""
    with opened(data) as fd, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        start = lines_start(fd, len(data), lines, limit)
    *whole, rest = data.split(b"\n")
    every = [line + b"\n" for line in whole] + [rest] * bool(rest)
    ends = [b"".join(every[at:]) for at in range(len(every) + 1)]
    best = ends[max(len(every) - lines, 0)]
    if len(best) > limit:
        best = next((end for end in ends if 0 < len(end) <= limit), data[-limit:])
    assert data[start:] == best


def test_last_lines_of_gigabytes_are_found_by_reading_at_most_a_megabyte() -> None:
    with tempfile.TemporaryFile() as file, pytest.MonkeyPatch.context() as patch:
        file.truncate(5 << 30)
        read: list[int] = []

        def counted(fd: int, at: int, count: int) -> bytes:
            read.append(count)
            return read_fully(fd, at, count)

        patch.setattr(module, "read_fully", counted)
        assert lines_start(file.fileno(), 5 << 30, 10_000, 1 << 20) == (5 << 30) - (1 << 20)
        assert sum(read) == 1 << 20
