"""The state of one file transfer: what is to be sent, how much has been, and why it was aborted."""

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
    """The transfer ended early and the connection was aborted."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


@dataclass(slots=True)
class TransferState:
    """What is to be sent for one download, and how much has been."""

    key: str
    """The job id, whose share of the threads is used."""
    segments: Sequence[ByteRange | bytes]
    """Ranges of the file, and bytes that are sent as they are; empty if everything is sent in one write."""
    expected: int
    """Bytes of the file to send."""
    token: Token
    """The token of the request."""
    link: str | None = None
    """The id of the link that authenticated the request, if one did."""
    sent: int = 0
    """Bytes of the file sent so far."""
    file_taken: bool = False
    """Whether the body writer has taken over the file and will close it."""
    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    accepted_by_client: Callable[[], int] | None = None
    """Returns the number of bytes that the client's kernel has acknowledged, if the transfer can tell."""
    _limit: asyncio.Timeout | None = None
    _end_outcome: Outcome = Outcome.TOO_SLOW

    def acked_bytes(self) -> int:
        """Return how many bytes the client has acknowledged; if unknown, how many were sent."""
        return self.sent if self.accepted_by_client is None else self.accepted_by_client()

    def end_early(self, outcome: Outcome = Outcome.TOO_SLOW) -> None:
        """End the transfer early: its slot is needed for another one, or its token no longer permits it."""
        if self._limit is not None:
            self._end_outcome = outcome
            self._limit.reschedule(0)

    @asynccontextmanager
    async def interruptible(self) -> AsyncIterator[None]:
        """Allow `end_early` to end the block; raises TransferAborted with its outcome then."""
        try:
            async with asyncio.timeout(None) as self._limit:
                yield
        except TimeoutError as exc:
            if self._limit is not None and self._limit.expired():
                raise TransferAborted(self._end_outcome) from exc
            raise
        finally:
            self._limit = None
