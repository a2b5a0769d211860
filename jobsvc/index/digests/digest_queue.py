"""Queue digest requests: owners are served round-robin, the requests of one owner in order of arrival.

Bounded per owner, because each digest requires a whole output to be read. Many requests of one owner do not
delay those of the next. No I/O.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from jobsvc.domain.job import Job
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.output_hash import HashProgress

MAX_WAITING_PER_OWNER: Final = 256
"""Maximum queued requests of one owner."""


class DigestRequest(NamedTuple):
    """A request for the digest of one version of a job's output."""

    job: Job
    version: FileVersion
    due: float
    """Earliest start (monotonic seconds)."""
    progress: HashProgress | None = None
    """The state of the hash after earlier turns; None before the first."""


class DigestQueue:
    """The queues of all owners. Event loop only."""

    def __init__(self, most: int = MAX_WAITING_PER_OWNER) -> None:
        """`most`: maximum queued requests per owner."""
        self._max_per_owner = most
        self._by_owner: dict[str, dict[str, DigestRequest]] = {}
        """By owner, the next one to be served first: requests by job id."""

    def __len__(self) -> int:
        return sum(map(len, self._by_owner.values()))

    @property
    def due(self) -> float:
        """The earliest `due` of all requests (monotonic seconds); infinity if there are none."""
        return min((wish.due for line in self._by_owner.values() for wish in line.values()), default=inf)

    def add(self, wish: DigestRequest) -> bool:
        """Queue a request; it replaces one for another version of the same output.

        Returns False if the owner has too many queued requests.
        """
        line = self._by_owner.get(wish.job.owner, {})
        waiting = line.get(wish.job.id)
        if waiting is None and len(line) >= self._max_per_owner:
            return False
        if waiting is None or waiting.version != wish.version:
            line[wish.job.id] = wish
        self._by_owner[wish.job.owner] = line
        return True

    def put_back(self, wish: DigestRequest) -> None:
        """Queue a request again, behind its owner's others, unless one for the same job is queued."""
        self._by_owner.setdefault(wish.job.owner, {}).setdefault(wish.job.id, wish)

    def take(self, now: float, owner: str | None = None) -> DigestRequest | None:
        """Remove and return the next request that is due at `now`; None if there is none.

        Requests of `owner`, whose turn is not over, come first.
        """
        owners = list(self._by_owner)
        if owner in self._by_owner:
            owners.insert(0, owner)
        for each in owners:
            line = self._by_owner[each]
            for wish in line.values():
                if wish.due <= now:
                    del line[wish.job.id]
                    del self._by_owner[each]
                    if line:
                        self._by_owner[each] = line  # moves the owner to the end
                    return wish
        return None
