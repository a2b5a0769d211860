"""Perform operations that another thread can end at once: while they wait, and while they read a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, Final, TypeVar, cast

from jobsvc.client.errors import ConnectionFailed, Stopped
from jobsvc.client.protocol.steps import Close, Emit, Open, Operation, Read, Sleep, Step
from jobsvc.client.transport.driver import BodyStream

T = TypeVar("T")

_CHECK_INTERVAL_S: Final = 0.5


class Idle:
    """Everything that the service has sent so far was emitted."""


IDLE: Final = Idle()


def stoppable(operation: Operation[T], stop: Event | None) -> Operation[T]:
    """Perform an operation of requests until `stop` is set, then raise Stopped."""
    return (yield from _perform_all(operation, stop, []))


def stoppable_stream(operation: Operation[None], stop: Event | None) -> Operation[None]:
    """Perform an operation that reads a stream until `stop` is set; emit IDLE before each read of it."""
    with closed_when_stopped(stop) as streams:
        yield from _perform_all(operation, stop, streams, emit_idle=True)


def check(stop: Event | None) -> None:
    """Raise Stopped if `stop` is set."""
    if stop is not None and stop.is_set():
        raise Stopped("The download was stopped; the next one continues it.")


def pause(seconds: float, stop: Event | None) -> None:
    """Wait. Raises Stopped."""
    (Event() if stop is None else stop).wait(seconds)
    check(stop)


class _Result:
    """What an operation returned."""

    def __init__(self, value: object) -> None:
        self.value = value


def _perform_all(
    operation: Operation[T], stop: Event | None, streams: list[BodyStream], *, emit_idle: bool = False
) -> Operation[T]:
    try:
        step = _advance(lambda: operation.send(None))
        while not isinstance(step, _Result):
            if emit_idle and isinstance(step, Read):
                yield Emit(IDLE)
            check(stop)
            step = yield from _perform(operation, step, stop, streams)
        return cast(T, step.value)
    finally:
        operation.close()


def _perform(
    operation: Operation[Any], step: Step, stop: Event | None, streams: list[BodyStream]
) -> Operation[Step | _Result]:
    """Wait, or let the driver perform a step; return the next one."""
    if isinstance(step, Sleep):
        pause(step.seconds, stop)
        return _advance(lambda: operation.send(None))
    try:
        result = yield step
    except ConnectionFailed as exc:
        check(stop)
        failure = exc
        return _advance(lambda: operation.throw(failure))
    if isinstance(step, Open):
        streams[:] = [result]
    elif isinstance(step, Close):
        streams.clear()
    return _advance(lambda: operation.send(result))


def _advance(resume: Callable[[], Step]) -> Step | _Result:
    try:
        return resume()
    except StopIteration as finished:
        return _Result(finished.value)


@contextmanager
def closed_when_stopped(stop: Event | None) -> Iterator[list[BodyStream]]:
    """Yield a list, and close the streams in it once `stop` is set: nothing else ends a read.

    Check `stop` after adding a stream: it may have been set before.
    """
    streams: list[BodyStream] = []
    ended = Event()

    def close_when_stopped() -> None:
        while stop is not None and not ended.is_set():
            if stop.wait(_CHECK_INTERVAL_S):
                for stream in streams:
                    stream.close()
                return

    if stop is not None:
        Thread(target=close_when_stopped, name="jobsvc-stop", daemon=True).start()
    try:
        yield streams
    finally:
        ended.set()
