"""The state of a download of several files: which worker receives what, and what has to be done next.

Workers ask for work: to name a complete file, to receive a segment of a file that was begun, to begin the
next file. One lock protects all state; no I/O is done while it is held, except closing connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import Condition, Lock
from time import monotonic
from typing import Final, Protocol, TypeAlias

from jobsvc.client.download.source import Source
from jobsvc.client.download.transfer.file_transfer import Receiver, Superseded, Transfer
from jobsvc.client.models import Downloaded
from jobsvc.client.transport.driver import Transport

MAX_UNHASHED: Final = 32
"""Files that wait to be hashed; no further one is begun meanwhile."""

Work: TypeAlias = Callable[[], object]


class Steps(Protocol):
    """What is done with a file before and after its bytes are received; called by workers."""

    def begin(self, batch: Batch, transfer: Transfer) -> None:
        """Open the part file, and call `batch.begun`."""

    def receiver(self, batch: Batch, transfer: Transfer, start: int, stop: int) -> Receiver:
        """Create a receiver for a segment; called with the lock."""

    def finish(self, batch: Batch, transfer: Transfer) -> None:
        """Name a complete file, and call `batch.finished`."""

    def differs(self, transfer: Transfer) -> None:
        """Decide what happens to a target that exists with other bytes; not with the lock."""

    def find_current(self, source: Source) -> Source:
        """Return the current version of a file."""


class Batch:
    """The files of one download. Its methods can be called from any thread."""

    def __init__(
        self,
        transport: Transport,
        retries: int,
        transfers: Sequence[Transfer],
        steps: Steps,
        *,
        parallel: int,
        verify: bool,
    ) -> None:
        """`parallel`: maximum connections. `verify`: compare SHA-256."""
        self.transport = transport
        self.retries = retries
        self.transfers = transfers
        self.verify = verify
        self.stopping = False
        self.lock = Lock()
        self.changed = Condition(self.lock)
        self.hashable = Condition(self.lock)
        """Notified when there is something to hash."""
        self.done: list[tuple[Transfer, Downloaded]] = []
        """Results that the thread of the caller has not taken yet."""
        self.error: BaseException | None = None
        self.received_bytes = 0
        self.total_bytes = sum(transfer.source.size for transfer in transfers)
        self.files_done = 0
        self.latest: Transfer | None = None
        """The file that changed last."""
        self.to_hash: list[Transfer] = []
        """Files that were begun and are not hashed."""
        self.without_digest: dict[Transfer, None] = {}
        """Complete files whose SHA-256 the service has not sent yet, in order of completion."""
        self._parallel = parallel
        self.steps = steps
        self._queue = deque(transfers)
        self._begun: list[Transfer] = []
        """Files of which something is to be received."""
        self._work: deque[Work] = deque()
        """What is done before anything else is received."""
        self._receiving = 0
        self._max_receiving = parallel
        self._not_before = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether all files are done."""
        return self.files_done == len(self.transfers)

    @property
    def is_receiving(self) -> bool:
        """Whether bytes are still missing."""
        return bool(self._queue or self._begun)

    def fail(self, error: BaseException) -> None:
        """End the download with this error, unless there was one before."""
        with self.lock:
            if not self.stopping and self.error is None:
                self.error = error
            self._stop()

    def stop(self) -> None:
        """End all work."""
        with self.lock:
            self._stop()

    def next_work(self) -> Work | None:
        """Wait for work and return it; None if there is none left."""
        with self.lock:
            while not self.stopping and not self.is_finished:
                if self._work:
                    return self._work.popleft()
                if self._receiving < self._max_receiving and (work := self._receive_next()):
                    return work
                self.changed.wait()
        return None

    def add_work(self, work: Work) -> None:
        """Let a worker do something soon. Call this with the lock."""
        self._work.append(work)
        self.changed.notify_all()

    def begun(self, transfer: Transfer) -> None:
        """Receive what a part file lacks; or if the target exists, compare it."""
        with self.lock:
            self._receiving -= 1
            if transfer.exists:
                transfer.is_received = True
                self.latest = transfer
            else:
                self._count(transfer, transfer.opened.received)
                self._plan(transfer)
            if self.verify:
                self.to_hash.append(transfer)
            self._check_received(transfer)

    def verified(self, transfer: Transfer) -> None:
        """Let a worker name a file. Call this with the lock."""
        self.add_work(partial(self.steps.finish, self, transfer))

    def differs(self, transfer: Transfer) -> None:
        """Go on with a target that exists with other bytes. Call this with the lock."""

        def receive() -> None:
            self.steps.differs(transfer)
            with self.lock:
                self._count(transfer, -transfer.counted)
                transfer.exists = transfer.is_received = False
                transfer.reset(transfer.source)
                self._queue.append(transfer)
                self.changed.notify_all()

        self.add_work(receive)

    def finished(self, transfer: Transfer, result: Downloaded) -> None:
        """Note the result of a file that is done."""
        with self.lock:
            self.done.append((transfer, result))
            self.files_done += 1
            self.latest = transfer
            self._count(transfer, transfer.source.size - transfer.counted)
            self.changed.notify_all()
            self.hashable.notify_all()

    # What receivers call

    def received(self, transfer: Transfer, start: int, stop: int) -> bool:
        """Note that bytes were written; return whether so many were never on disk before."""
        added = transfer.opened.add(start, stop)
        total = transfer.opened.received
        with self.lock:
            self._count(transfer, added)
            self.hashable.notify()
            is_more = total > transfer.most_received
            transfer.most_received = max(total, transfer.most_received)
            return is_more

    def receiver_ended(self, transfer: Transfer, receiver: Receiver) -> None:
        """Go on after a receiver that has received its segment, or has given up."""
        with self.lock:
            transfer.receivers.discard(receiver)
            self._receiving -= 1
            self._check_received(transfer)
            self.changed.notify_all()

    def wants_digest(self, transfer: Transfer) -> bool:
        """Return whether the service's SHA-256 of a file is not known yet."""
        return self.verify and transfer.expected is None

    def digest_known(self, transfer: Transfer, source: Source, sha256: str) -> None:
        """Note the service's SHA-256 of one version of a file."""
        with self.lock:
            if transfer.source.etag == source.etag:
                transfer.expected = sha256

    def wait(self, seconds: float, receiver: Receiver | None = None) -> None:
        """Wait. Raises Superseded if the download ends, or if the receiver is superseded."""
        ends = monotonic() + seconds
        with self.lock:
            self._wait_until(lambda: ends, receiver)

    def wait_for_limit(self, receiver: Receiver) -> None:
        """Wait until the service accepts requests again. Raises the same as `wait`."""
        with self.lock:
            self._wait_until(lambda: self._not_before, receiver)

    def limit_reached(self, seconds: float) -> None:
        """Send no request for some time."""
        with self.lock:
            self._not_before = max(self._not_before, monotonic() + seconds)

    def give_up_connection(self, transfer: Transfer, receiver: Receiver) -> bool:
        """Use one connection less from now on, and let another receiver continue; False if it is the last."""
        with self.lock:
            if self._receiving <= 1 or transfer.generation != receiver.generation:
                return False
            self._max_receiving = self._receiving - 1
            transfer.segments.appendleft((receiver.start, receiver.stop))
            return True

    def receive_anew(self, transfer: Transfer, source: Source, receiver: Receiver | None) -> None:
        """Receive a file whose part file was emptied; `receiver` alone, if it is given."""
        with self.lock:
            self.total_bytes += source.size - transfer.source.size
            self.received_bytes -= transfer.counted
            transfer.generation += 1
            transfer.reset(source)
            if self.verify and transfer not in self.to_hash:
                self.to_hash.append(transfer)
            if receiver is None:
                self._plan(transfer)
                self._check_received(transfer)
            else:
                receiver.start, receiver.stop, receiver.generation = 0, source.size, transfer.generation

    def _receive_next(self) -> Work | None:
        for transfer in self._begun:
            if transfer.segments:
                receiver = self.steps.receiver(self, transfer, *transfer.segments.popleft())
                transfer.receivers.add(receiver)
                self._receiving += 1
                return receiver.run
        if self._queue and len(self.to_hash) < MAX_UNHASHED:
            self._receiving += 1
            return partial(self.steps.begin, self, self._queue.popleft())
        return None

    def _plan(self, transfer: Transfer) -> None:
        transfer.plan(self._parallel)
        if transfer.segments and transfer not in self._begun:
            self._begun.append(transfer)
        self.changed.notify_all()

    def _check_received(self, transfer: Transfer) -> None:
        """Go on with a file whose last byte was received."""
        if not transfer.exists:
            if transfer.receivers or transfer.segments or transfer.opened.received < transfer.source.size:
                return
            if transfer in self._begun:
                self._begun.remove(transfer)
            transfer.is_received = True
        if not self.verify:
            self.verified(transfer)
        self.hashable.notify()

    def _count(self, transfer: Transfer, added: int) -> None:
        transfer.counted += added
        self.received_bytes += added
        self.latest = transfer

    def _wait_until(self, moment: Callable[[], float], receiver: Receiver | None) -> None:
        while True:
            if self.stopping or (receiver is not None and receiver.is_superseded):
                raise Superseded
            remaining = moment() - monotonic()
            if remaining <= 0:
                return
            self.changed.wait(remaining)

    def _stop(self) -> None:
        self.stopping = True
        for transfer in self.transfers:
            for receiver in transfer.receivers:
                receiver.interrupt()
        self.changed.notify_all()
        self.hashable.notify_all()
