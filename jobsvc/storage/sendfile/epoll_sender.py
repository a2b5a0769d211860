"""Send many files to many sockets from one thread, driven by epoll.

Waking a pool thread each time a socket becomes writable costs more than the sendfile(2) call, so downloads
from fast storage share this thread. A blocking read here stalls all of them: a download whose chunks average
5 ms or more is returned to the data pool, and while one call lasts longer than 50 ms all other downloads are
returned there too.
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

from jobsvc.storage.sendfile.socket_sender import RESUMABLE, SendResult, SocketSender, StopReason
from jobsvc.storage.threads.background_closer import close
from jobsvc.storage.threads.thread_pool import STUCK_AFTER_S, expire

BLOCKED_AFTER_S: Final = 0.05
"""Seconds after which a call counts as blocked and all other sends are detached."""


@dataclass(eq=False, slots=True)
class _ActiveSend:
    """One send that is registered with epoll."""

    sender: SocketSender
    fd: int
    """The socket's descriptor."""
    start: int
    """Offset in the file of the first byte to send."""
    offset: int
    """Offset in the file of the next byte to send."""
    stop: int
    future: asyncio.Future[SendResult]

    def result(
        self, stop_reason: StopReason = StopReason.CONTINUE, error: OSError | None = None
    ) -> SendResult:
        return SendResult(self.offset - self.start, stop_reason, error)


class EpollSender:
    """The sender thread and its active sends. Public methods: event loop only."""

    def __init__(self, close_later: Callable[[object], None], *, deadline: float) -> None:
        """`dispose` closes, off the event loop, a file sender that is no longer needed.

        `deadline`: seconds after which a send that waits for one chunk fails.
        """
        self._deadline = deadline
        self._close_later = close_later
        self._epoll = select.epoll()
        self._wakeup_fd = os.eventfd(1)
        self._is_started = False
        self._check_scheduled = False
        self._is_closed = False
        self._lock = threading.Lock()
        """Held to write the attributes below; both threads write them."""
        self._active: dict[int, _ActiveSend] = {}
        self._sending: _ActiveSend | None = None
        self._sending_since = 0.0

    @property
    def accepts_sends(self) -> bool:
        """Whether new sends are accepted: not while a call is blocked, and not after `close`."""
        return not self._is_closed and self._call_duration() <= BLOCKED_AFTER_S

    def send(self, sender: SocketSender, start: int, stop: int) -> asyncio.Future[SendResult]:
        """Start sending the bytes from `start` to before `stop`; return a future with the SendResult.

        `sender` must not be used elsewhere until the future is done; if the future was cancelled or its
        deadline passed, `sender` is closed. It is also closed if this raises: OSError if memory or epoll
        watches are exhausted (epoll(7), max_user_watches).
        """
        loop = asyncio.get_running_loop()
        active = _ActiveSend(sender, sender.socket_fd, start, start, stop, loop.create_future())
        sender.cork(1)
        try:
            with self._lock:
                self._epoll.register(active.fd, select.EPOLLOUT)
                self._active[active.fd] = active
        except BaseException:
            self._close_later(sender)
            raise
        self._start_thread()
        self._schedule_check(loop)
        return active.future

    def stuck_threads(self) -> int:
        """Return 1 if the thread is stuck in one call, else 0."""
        return int(self._call_duration() > STUCK_AFTER_S)

    def close(self) -> None:
        """Refuse new sends; the thread ends after the active ones, unless it hangs."""
        if not self._is_closed:
            self._is_closed = True
            self._epoll.register(self._wakeup_fd, select.EPOLLIN | select.EPOLLONESHOT)
            self._start_thread()

    def _start_thread(self) -> None:
        # If no thread can be started, the next send tries again.
        if not self._is_started:
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._run, name="jobsvc-epoll-sender", daemon=True).start()
                self._is_started = True

    # In the sender's thread

    def _run(self) -> None:
        while not self._is_closed or self._active:
            for fd, _ in self._epoll.poll():
                active = self._next(fd)
                if active is not None:
                    self._send_chunk(active)
        self._epoll.close()
        os.close(self._wakeup_fd)

    def _next(self, fd: int) -> _ActiveSend | None:
        """Return the send whose socket is writable and mark it as current; None if it was detached."""
        with self._lock:
            self._sending, self._sending_since = self._active.get(fd), monotonic()
            return self._sending

    def _send_chunk(self, active: _ActiveSend) -> None:
        error, result = None, SendResult(0, StopReason.STORAGE_ERROR)
        try:
            result = active.sender.send_chunk(active.offset, active.stop)
        except BaseException as raised:  # noqa: BLE001 - passed to the waiting task, whatever it is
            error = raised
        active.offset += result.sent
        with self._lock:
            self._sending = None
            if result.stop_reason in RESUMABLE and active.offset < active.stop and active.sender.is_fast:
                return
            self._deactivate(active)
        outcome = error or active.result(result.stop_reason, result.error)
        try:
            active.future.get_loop().call_soon_threadsafe(self._finish, active, outcome)
        except RuntimeError:  # the event loop is closed, and nothing waits for the result
            close(active.sender)

    def _deactivate(self, active: _ActiveSend) -> None:
        self._epoll.unregister(active.fd)
        active.sender.cork(0)
        del self._active[active.fd]  # last: once nothing is active, the sockets may be closed

    # On the event loop

    def _finish(self, active: _ActiveSend, outcome: SendResult | BaseException) -> None:
        if active.future.done():
            self._close_later(active.sender)
        elif isinstance(outcome, SendResult):
            active.future.set_result(outcome)
        else:
            active.future.set_exception(outcome)

    def _call_duration(self) -> float:
        """Return how many seconds the current call has lasted; 0 if there is none."""
        return 0.0 if self._sending is None else monotonic() - self._sending_since

    def _schedule_check(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._check_scheduled and self._active:
            self._check_scheduled = True
            loop.call_later(BLOCKED_AFTER_S, self._check_blocked, loop)

    def _check_blocked(self, loop: asyncio.AbstractEventLoop) -> None:
        """If the current call is blocked, detach all other sends; their callers continue in the data pool.

        After `deadline` seconds the blocked send fails with StorageUnavailable.
        """
        self._check_scheduled = False
        with self._lock:
            blocked, duration = self._sending, self._call_duration()
            waiting = self._active.values() if duration > BLOCKED_AFTER_S else ()
            others = [each for each in waiting if each is not blocked]
            for active in others:
                self._deactivate(active)
        for active in others:
            self._finish(active, active.result())
        if blocked is not None and duration > self._deadline:
            expire(blocked.future)
        self._schedule_check(loop)
