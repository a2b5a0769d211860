"""Jobs as they are shown where nobody asks for one of them just now: to who waits, and in streams.

The same bytes as `GET /api/jobs/{id}` sends, made once for all who are told of the same change.
"""

from __future__ import annotations

from jobsvc.domain.job import Status
from jobsvc.index.freshness import Answer
from jobsvc.index.tails import Tails
from jobsvc.storage.reader import Reading
from jobsvc.web.representation import Representations, Shown


class Presenting:
    """Makes representations, out of what is remembered of them."""

    def __init__(self, tails: Tails, representations: Representations) -> None:
        self._tails = tails
        self._representations = representations

    async def of(self, reading: Reading) -> Shown:
        """Represent a reading; of a failed job with the end of its log, as far as storage answers."""
        logs = None
        if reading.job.status is Status.FAILED:
            _, logs = await self._tails.beside(Answer(reading, age=0.0, stale=False))
        return self._representations.of(reading, logs)
