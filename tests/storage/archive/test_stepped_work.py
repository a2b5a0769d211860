"""Long work in short steps."""

from __future__ import annotations

import threading
from collections.abc import Generator
from time import monotonic

import pytest

from jobsvc.storage.archive.stepped_work import SteppedWork


@pytest.mark.alone
def test_step_ends_after_its_time_and_the_next_one_continues() -> None:
    done: list[int] = []

    def work() -> Generator[None, None, str]:
        end_at = monotonic() + 0.05
        while monotonic() < end_at:
            done.append(1)
            yield
        return "all"

    steps = SteppedWork(work())
    started_at = monotonic()
    assert not steps.step(0.01)
    assert monotonic() - started_at < 0.05
    count = len(done)
    while not steps.step(0.01):
        pass
    assert len(done) > count
    assert steps.result == "all"


def test_error_of_the_work_is_raised() -> None:
    def work() -> Generator[None, None, None]:
        yield
        raise OSError(5, "broken")

    with pytest.raises(OSError, match="broken"):
        SteppedWork(work()).step()


def test_closed_work_ends_and_is_not_continued() -> None:
    closed: list[bool] = []

    def work() -> Generator[None, None, None]:
        try:
            while True:
                yield
        finally:
            closed.append(True)

    steps = SteppedWork(work())
    assert not steps.step(0.001)
    steps.close()
    steps.close()
    assert closed == [True]
    with pytest.raises(RuntimeError):
        steps.step()


def test_work_that_is_closed_during_a_step_is_closed_at_its_end() -> None:
    running, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def work() -> Generator[None, None, None]:
        try:
            running.set()
            go_on.wait(10)
            yield
            yield
        finally:
            closed.set()

    steps = SteppedWork(work())
    errors: list[BaseException] = []

    def step() -> None:
        try:
            steps.step()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    assert running.wait(10)
    steps.close()
    assert not closed.is_set()
    go_on.set()
    thread.join(10)
    assert closed.is_set()
    assert len(errors) == 1
