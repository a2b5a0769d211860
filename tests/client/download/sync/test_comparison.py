"""Files on disk are compared with the digests of the service, for which it is asked until it tells them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from jobsvc.client.download.sync.comparison import PATIENCE_S, equal_files
from jobsvc.client.download.sync.plan import Action, PlannedFile
from jobsvc.client.models import File

TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


def file(path: str, sha256: str | None = None, *, etag: str = '"1"') -> File:
    return File("job-1", "main", path, None, 10, TIME, "image/x-exr", etag, sha256)


class Lists:
    """The lists that the service sends one after the other; the last one again and again."""

    def __init__(self, *lists: list[File]) -> None:
        self._lists = list(lists)
        self.paused = 0.0

    def next(self) -> list[File]:
        return self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]

    def pause(self, seconds: float) -> None:
        self.paused += seconds


def equal(first: list[File], lists: Lists) -> set[str]:
    return equal_files(
        [(PlannedFile(each, each.path, Action.COMPARE), Path(each.path)) for each in first],
        list_files=lists.next,
        sha256_of=lambda path: None if path.name == "unreadable" else f"digest of {path.name}",
        pause=lists.pause,
    )


def test_known_digests_need_no_further_list() -> None:
    files = [file("a", "digest of a"), file("b", "other"), file("unreadable", "digest")]
    lists = Lists([])
    assert (equal(files, lists), lists.paused) == ({"a"}, 0)


def test_lists_are_requested_until_all_digests_are_known() -> None:
    a, b = file("a"), file("b")
    lists = Lists([a, b], [file("a", "digest of a"), b], [file("a", "digest of a"), file("b", "digest of b")])
    assert equal([a, b], lists) == {"a", "b"}


def test_digest_that_is_not_told_in_time_counts_as_different() -> None:
    files = [file("a", "digest of a"), file("b")]
    lists = Lists(files)
    assert equal(files, lists) == {"a"}
    assert PATIENCE_S <= lists.paused < 2 * PATIENCE_S


def test_file_that_is_replaced_meanwhile_counts_as_different() -> None:
    lists = Lists([file("a", "digest of a", etag='"2"')])
    assert (equal([file("a")], lists), lists.paused < 1) == (set(), True)
