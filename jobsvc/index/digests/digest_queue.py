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
from jobsvc.storage.state.digest_table import digest_key

MAX_WAITING_PER_OWNER: Final = 256
"""Maximum queued requests of one owner."""


class DigestRequest(NamedTuple):
    """A request for the digest of one version of a file of a job."""

    job: Job
    version: FileVersion
    due: float
    """Earliest start (monotonic seconds)."""
    progress: HashProgress | None = None
    """The state of the hash after earlier turns; None before the first."""
    path: str | None = None
    """The path of another file of the job, as in its record; None for the main output."""

    @property
    def key(self) -> str:
        """The key of the digest in the table."""
        return digest_key(self.job.id, self.path)


class DigestQueue:
    """The queues of all owners. Event loop only."""

    def __init__(self, max_per_owner: int = MAX_WAITING_PER_OWNER) -> None:
        """`max_per_owner`: maximum queued requests per owner."""
        self._max_per_owner = max_per_owner
        self._by_owner: dict[str, dict[str, DigestRequest]] = {}
        """By owner, the next one to be served first: requests by key."""

    def __len__(self) -> int:
        return sum(map(len, self._by_owner.values()))

    @property
    def due(self) -> float:
        """The earliest `due` of all requests (monotonic seconds); infinity if there are none."""
        return min(
            (request.due for requests in self._by_owner.values() for request in requests.values()),
            default=inf,
        )

    def add(self, request: DigestRequest) -> bool:
        """Queue a request; it replaces one for another version of the same file.

        Returns False if the owner has too many queued requests.
        """
        requests = self._by_owner.get(request.job.owner, {})
        key = request.key
        waiting = requests.get(key)
        if waiting is None and len(requests) >= self._max_per_owner:
            return False
        if waiting is None or waiting.version != request.version:
            requests[key] = request
        self._by_owner[request.job.owner] = requests
        return True

    def put_back(self, request: DigestRequest) -> None:
        """Queue a request again, behind its owner's others, unless one for the same file is queued."""
        self._by_owner.setdefault(request.job.owner, {}).setdefault(request.key, request)

    def take(self, now: float, owner: str | None = None) -> DigestRequest | None:
        """Remove and return the next request that is due at `now`; None if there is none.

        Requests of `owner`, whose turn is not over, come first.
        """
        owners = list(self._by_owner)
        if owner in self._by_owner:
            owners.insert(0, owner)
        for candidate in owners:
            requests = self._by_owner[candidate]
            for request in requests.values():
                if request.due <= now:
                    del requests[request.key]
                    del self._by_owner[candidate]
                    if requests:
                        self._by_owner[candidate] = requests  # moves the owner to the end
                    return request
        return None
