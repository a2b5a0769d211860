"""What is to go out for one download, how much of it has, and what an early end of it is called."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from jobsvc.domain.access import Token
from jobsvc.observe.download_log import Outcome
from jobsvc.web.headers.byte_ranges import ByteRange


class TransferAborted(Exception):
    """The transfer ended before its end, and the connection was aborted."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


@dataclass(slots=True)
class TransferState:
    """What is to go out for one download, and how much of it has."""

    key: str
    """Whose share of the threads it takes: the job's id."""
    segments: Sequence[ByteRange | bytes]
    """Ranges of the file, and bytes that go out as they are; none where all goes out in one write."""
    expected: int
    """Bytes of the file."""
    token: Token
    """By which the file is sent."""
    sent: int = 0
    """Likewise."""
    file_taken: bool = False
    """Whether the transfer has taken the file over, and closes it."""
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    accepted_by_client: Callable[[], int] | None = None
    """Counts the bytes that the client's system has taken, where the transfer can tell."""
    _limit: asyncio.Timeout | None = None

    def acked_bytes(self) -> int:
        """Count the bytes that the client has taken."""
        return self.sent if self.accepted_by_client is None else self.accepted_by_client()

    def end_early(self) -> None:
        """End the transfer early: another request needs its place."""
        if self._limit is not None:
            self._limit.reschedule(0)

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Let `give_way` end the block. Interrupted."""
        try:
            async with asyncio.timeout(None) as self._limit:
                yield
        except TimeoutError as ended:
            if self._limit is not None and self._limit.expired():
                raise TransferAborted(Outcome.TOO_SLOW) from ended
            raise
        finally:
            self._limit = None
