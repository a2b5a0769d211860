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

from jobsvc.storage.sendfile.file_sender import UNDER_WAY, Conduit, Halt, Turn
from jobsvc.storage.threads.background_closer import close
from jobsvc.storage.threads.thread_pool import PATIENCE as STUCK
from jobsvc.storage.threads.thread_pool import expire

PATIENCE: Final = 0.05
"""Seconds that one may hold the others up."""


@dataclass(eq=False, slots=True)
class _Passenger:
    """One download on board."""

    conduit: Conduit
    fd: int
    """Its socket's."""
    begun: int
    at: int
    stop: int
    landed: asyncio.Future[Turn]

    def turn(self, halt: Halt = Halt.TURN_OVER, fault: OSError | None = None) -> Turn:
        return Turn(self.at - self.begun, halt, fault)


class Ferry:
    """The thread and who is on board. All public methods are for the thread of the loop."""

    def __init__(self, dispose: Callable[[object], None], *, deadline: float) -> None:
        """`dispose` closes what nobody waits for any more, off the loop.

        `deadline`: seconds that a download is left to wait for one chunk.
        """
        self._deadline = deadline
        self._dispose = dispose
        self._epoll = select.epoll()
        self._bell = os.eventfd(1)
        self._begun = False
        self._watched = False
        self._ended = False
        self._lock = threading.Lock()
        """For what follows: both threads write it."""
        self._aboard: dict[int, _Passenger] = {}
        self._moving: _Passenger | None = None
        self._since = 0.0

    @property
    def runs(self) -> bool:
        """Whether it takes anyone on board: while it waits for storage it does not."""
        return not self._ended and self._waits() <= PATIENCE

    def carry(self, conduit: Conduit, start: int, stop: int) -> asyncio.Future[Turn]:
        """Begin to send the bytes from `start` to before `stop`; the future is told how that went.

        The conduit is lent until then; if the future was cancelled or had its deadline, it is closed. It is
        closed too where this raises: OSError for want of memory or of watches (epoll(7), max_user_watches).
        """
        loop = asyncio.get_running_loop()
        passenger = _Passenger(conduit, conduit.socket_fd, start, start, stop, loop.create_future())
        conduit.cork(1)
        try:
            with self._lock:
                self._epoll.register(passenger.fd, select.EPOLLOUT)
                self._aboard[passenger.fd] = passenger
        except BaseException:
            self._dispose(conduit)
            raise
        self._begin_thread()
        self._watch(loop)
        return passenger.landed

    def stuck(self) -> int:
        """Count the threads that wait for storage unduly long: one at most."""
        return int(self._waits() > STUCK)

    def close(self) -> None:
        """Take nobody on any more; the thread ends, unless it hangs."""
        if not self._ended:
            self._ended = True
            self._epoll.register(self._bell, select.EPOLLIN | select.EPOLLONESHOT)
            self._begin_thread()

    def _begin_thread(self) -> None:
        # Where there is no room for a thread, the next passenger tries again.
        if not self._begun:
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self._serve, name="jobsvc-ferry", daemon=True).start()
                self._begun = True

    def _serve(self) -> None:
        while not self._ended or self._aboard:
            for fd, _ in self._epoll.poll():
                passenger = self._next(fd)
                if passenger is not None:
                    self._move(passenger)
        self._epoll.close()
        os.close(self._bell)

    def _next(self, fd: int) -> _Passenger | None:
        """Say who has room now; None where he was put ashore meanwhile."""
        with self._lock:
            self._moving, self._since = self._aboard.get(fd), monotonic()
            return self._moving

    def _move(self, passenger: _Passenger) -> None:
        error, turn = None, Turn(0, Halt.FAULT)
        try:
            turn = passenger.conduit.step(passenger.at, passenger.stop)
        except BaseException as raised:  # noqa: BLE001 - carried to the waiting task, whatever it is
            error = raised
        passenger.at += turn.sent
        with self._lock:
            self._moving = None
            if turn.halt in UNDER_WAY and passenger.at < passenger.stop and passenger.conduit.quick:
                return
            self._put_ashore(passenger)
        end = error or passenger.turn(turn.halt, turn.fault)
        try:
            passenger.landed.get_loop().call_soon_threadsafe(self._land, passenger, end)
        except RuntimeError:  # the loop is gone, and with it whoever waited
            close(passenger.conduit)

    def _put_ashore(self, passenger: _Passenger) -> None:
        del self._aboard[passenger.fd]
        self._epoll.unregister(passenger.fd)
        passenger.conduit.cork(0)

    def _land(self, passenger: _Passenger, end: Turn | BaseException) -> None:
        if passenger.landed.done():
            self._dispose(passenger.conduit)
        elif isinstance(end, Turn):
            passenger.landed.set_result(end)
        else:
            passenger.landed.set_exception(end)

    def _waits(self) -> float:
        """Say how many seconds the call has lasted that it is in."""
        return 0.0 if self._moving is None else monotonic() - self._since

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._watched and self._aboard:
            self._watched = True
            loop.call_later(PATIENCE, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put ashore all who are held up by one, and have him who waits too long wait no longer."""
        self._watched = False
        with self._lock:
            moving, waits = self._moving, self._waits()
            aboard = self._aboard.values() if waits > PATIENCE else ()
            others = [each for each in aboard if each is not moving]
            for passenger in others:
                self._put_ashore(passenger)
        for passenger in others:
            self._land(passenger, passenger.turn())
        if moving is not None and waits > self._deadline:
            expire(moving.landed)
        self._watch(loop)
