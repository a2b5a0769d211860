"""One thread that carries the bytes of many downloads, each as its client has room, while storage is quick.

No thread has to be handed anything whenever a client has taken some: that costs more than sending does. But
whoever waits for storage here holds all others up. So he goes ashore once it is not quick any more; and while
one call lasts, so does everyone else. Ashore are Disk's threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from jobsvc.storage.sendfile.file_sender import RESUMABLE, FileSender, SendResult, StopReason
from jobsvc.storage.threads.background_closer import close
from jobsvc.storage.threads.thread_pool import STUCK_AFTER_S as STUCK
from jobsvc.storage.threads.thread_pool import expire

BLOCKED_AFTER_S: Final = 0.05
"""Seconds that one may hold the others up."""


@dataclass(eq=False, slots=True)
class _ActiveSend:
    """One download on board."""

    sender: FileSender
    fd: int
    """Its socket's."""
    started_at: int
    offset: int
    stop: int
    future: asyncio.Future[SendResult]

    def result(self, halt: StopReason = StopReason.SLICE_USED, fault: OSError | None = None) -> SendResult:
        return SendResult(self.offset - self.started_at, halt, fault)


class EpollSender:
    """The thread and who is on board. All public methods are for the thread of the loop."""

    def __init__(self, dispose: Callable[[object], None], *, deadline: float) -> None:
        """`dispose` closes what nobody waits for any more, off the loop.

        `deadline`: seconds that a download is left to wait for one chunk.
        """
        self._deadline = deadline
        self._close_later = dispose
        self._epoll = select.epoll()
        self._wakeup_fd = os.eventfd(1)
        self._is_started = False
        self._watched = False
        self._is_closed = False
        self._lock = threading.Lock()
        """For what follows: both threads write it."""
        self._active: dict[int, _ActiveSend] = {}
        self._sending: _ActiveSend | None = None
        self._sending_since = 0.0

    @property
    def is_running(self) -> bool:
        """Whether it takes anyone on board: while it waits for storage it does not."""
        return not self._is_closed and self._waits() <= BLOCKED_AFTER_S

    def send(self, conduit: FileSender, start: int, stop: int) -> asyncio.Future[SendResult]:
        """Begin to send the bytes from `start` to before `stop`; the future is told how that went.

        The conduit is lent until then; if the future was cancelled or had its deadline, it is closed. It is
        closed too where this raises: OSError for want of memory or of watches (epoll(7), max_user_watches).
        """
        loop = asyncio.get_running_loop()
        passenger = _ActiveSend(conduit, conduit.socket_fd, start, start, stop, loop.create_future())
        conduit.cork(1)
        try:
            with self._lock:
                self._epoll.register(passenger.fd, select.EPOLLOUT)
                self._active[passenger.fd] = passenger
        except BaseException:
            self._close_later(conduit)
            raise
        self._start_thread()
        self._watch(loop)
        return passenger.future

    def stuck_threads(self) -> int:
        """Count the threads that wait for storage unduly long: one at most."""
        return int(self._waits() > STUCK)

    def close(self) -> None:
        """Take nobody on any more; the thread ends, unless it hangs."""
        if not self._is_closed:
            self._is_closed = True
            self._epoll.register(self._wakeup_fd, select.EPOLLIN | select.EPOLLONESHOT)
            self._start_thread()

    def _start_thread(self) -> None:
        # Where there is no room for a thread, the next passenger tries again.
        if not self._is_started:
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._run, name="jobsvc-ferry", daemon=True).start()
                self._is_started = True

    def _run(self) -> None:
        while not self._is_closed or self._active:
            for fd, _ in self._epoll.poll():
                passenger = self._next(fd)
                if passenger is not None:
                    self._send_slice(passenger)
        self._epoll.close()
        os.close(self._wakeup_fd)

    def _next(self, fd: int) -> _ActiveSend | None:
        """Say who has room now; None where he was put ashore meanwhile."""
        with self._lock:
            self._sending, self._sending_since = self._active.get(fd), monotonic()
            return self._sending

    def _send_slice(self, passenger: _ActiveSend) -> None:
        error, turn = None, SendResult(0, StopReason.STORAGE_ERROR)
        try:
            turn = passenger.sender.send_chunk(passenger.offset, passenger.stop)
        except BaseException as raised:  # noqa: BLE001 - carried to the waiting task, whatever it is
            error = raised
        passenger.offset += turn.sent
        with self._lock:
            self._sending = None
            if (
                turn.stop_reason in RESUMABLE
                and passenger.offset < passenger.stop
                and passenger.sender.is_fast
            ):
                return
            self._detach_blocked(passenger)
        end = error or passenger.result(turn.stop_reason, turn.error)
        try:
            passenger.future.get_loop().call_soon_threadsafe(self._detach, passenger, end)
        except RuntimeError:  # the loop is gone, and with it whoever waited
            close(passenger.sender)

    def _detach_blocked(self, passenger: _ActiveSend) -> None:
        del self._active[passenger.fd]
        self._epoll.unregister(passenger.fd)
        passenger.sender.cork(0)

    def _detach(self, passenger: _ActiveSend, end: SendResult | BaseException) -> None:
        if passenger.future.done():
            self._close_later(passenger.sender)
        elif isinstance(end, SendResult):
            passenger.future.set_result(end)
        else:
            passenger.future.set_exception(end)

    def _waits(self) -> float:
        """Say how many seconds the call has lasted that it is in."""
        return 0.0 if self._sending is None else monotonic() - self._sending_since

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._watched and self._active:
            self._watched = True
            loop.call_later(BLOCKED_AFTER_S, self._check_blocked, loop)

    def _check_blocked(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put ashore all who are held up by one, and have him who waits too long wait no longer."""
        self._watched = False
        with self._lock:
            moving, waits = self._sending, self._waits()
            aboard = self._active.values() if waits > BLOCKED_AFTER_S else ()
            others = [each for each in aboard if each is not moving]
            for passenger in others:
                self._detach_blocked(passenger)
        for passenger in others:
            self._detach(passenger, passenger.result())
        if moving is not None and waits > self._deadline:
            expire(moving.future)
        self._watch(loop)
