from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator

import pytest

from jobsvc.storage.threads.background_closer import BackgroundCloser, close
from tests.eventually import wait_until


class Thing:
    """A resource whose close may block until it is released."""

    def __init__(self, *, hangs: bool = False, error: Exception | None = None) -> None:
        self.release = threading.Event()
        if not hangs:
            self.release.set()
        self.error = error
        self.closed_by: list[str] = []

    def close(self) -> None:
        self.release.wait(10)
        self.closed_by.append(threading.current_thread().name)
        if self.error is not None:
            raise self.error


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jobsvc-test-closer"]


@pytest.fixture
def closer() -> Iterator[BackgroundCloser]:
    closer = BackgroundCloser("test")
    yield closer
    closer.shut_down()
    wait_until(lambda: not threads())


def test_resource_is_closed_once_by_a_daemon_thread(closer: BackgroundCloser) -> None:
    things = [Thing() for _ in range(10)]
    for thing in things:
        closer.close_later(thing)
    wait_until(lambda: [thing.closed_by for thing in things] == [["jobsvc-test-closer"]] * 10)
    assert all(thread.daemon for thread in threads())
    assert len(threads()) <= 3


def test_object_without_close_is_dropped_without_a_thread(closer: BackgroundCloser) -> None:
    for thing in (None, 5, "text", object()):
        closer.close_later(thing)
    assert threads() == []


def test_system_error_on_close_is_ignored(closer: BackgroundCloser) -> None:
    closer.close_later(Thing(error=OSError(5, "kept for close")))
    closer.close_later(last := Thing())
    wait_until(lambda: len(last.closed_by) == 1)
    close(Thing(error=OSError(5, "kept for close")))


def test_two_hanging_closes_do_not_delay_the_rest(closer: BackgroundCloser) -> None:
    hung = [Thing(hangs=True) for _ in range(2)]
    rest = [Thing() for _ in range(5)]
    for thing in (*hung, *rest):
        closer.close_later(thing)
    wait_until(lambda: all(thing.closed_by for thing in rest))
    assert not any(thing.closed_by for thing in hung)
    for thing in hung:
        thing.release.set()


def test_resources_queued_behind_hanging_closes_are_closed_after_them(closer: BackgroundCloser) -> None:
    hung = [Thing(hangs=True) for _ in range(3)]
    for thing in (*hung, last := Thing()):
        closer.close_later(thing)
    assert len(threads()) == 3
    hung[1].release.set()
    wait_until(lambda: bool(last.closed_by))
    for thing in hung:
        thing.release.set()


def test_ended_closer_still_closes_and_keeps_no_thread() -> None:
    closer = BackgroundCloser("test")
    closer.close_later(before := Thing())
    closer.shut_down()
    wait_until(lambda: not threads())
    closer.close_later(after := Thing())
    wait_until(lambda: not threads())
    assert [len(before.closed_by), len(after.closed_by)] == [1, 1]


def test_thread_that_cannot_start_is_tried_again(
    closer: BackgroundCloser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in: no limit on threads binds root."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        closer.close_later(first := Thing())
    closer.close_later(second := Thing())
    wait_until(lambda: bool(first.closed_by and second.closed_by))


def test_closed_resources_are_not_kept_alive(closer: BackgroundCloser) -> None:
    def put_one() -> weakref.ref[Thing]:
        closer.close_later(thing := Thing())
        return weakref.ref(thing)

    kept = put_one()
    wait_until(lambda: kept() is None)
