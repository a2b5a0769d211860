"""Verify files: hash what is on disk while the rest is received, and compare with the service's SHA-256.

The bytes are read from the part file behind the received ones, so that resumed, parallel and single streams
are alike, and so that the disk's errors are found, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from jobsvc.client.download.source import Source
from jobsvc.client.download.transfer.batch import Batch
from jobsvc.client.download.transfer.file_transfer import Superseded, Transfer
from jobsvc.client.download.transfer.starting_over import discard, replace
from jobsvc.client.errors import DownloadError, NotVerified

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

READ_SIZE: Final = 1 << 20
SLICE: Final = 8 << 20
"""Bytes that are hashed before another file has its turn."""
FIRST_PAUSE_S = 0.2
MAX_PAUSE_S: Final = 5.0
WHILE_RECEIVING_S: Final = 15.0
"""Pause between two questions for digests while files are received."""
PATIENCE_S: Final = 90.0
PATIENCE_BYTES_PER_S: Final = 10_000_000
"""How long to wait for the next digest, without and per byte of the largest file.

The service tries a file that it could not hash again after 60 s.
"""
MAX_OPEN: Final = 32
"""Complete files without a digest that stay open and locked."""

REPLACED: Final = "replaced"
"""Returned in place of a SHA-256."""


class DigestFinder(Protocol):
    """Asks the service for digests, and makes it compute them."""

    def find(self, sources: Sequence[Source]) -> Sequence[str | None]:
        """Return the SHA-256 of each file: None if it is not known, REPLACED if it has another version.

        Raises Problem or ConnectionFailed.
        """


class _Slice(NamedTuple):
    """What is hashed next."""

    transfer: Transfer
    generation: int
    hasher: Hash
    start: int
    stop: int


def hash_files(batch: Batch) -> None:
    """Hash what is on disk until all files are done. Runs in a thread of its own."""
    buffer = memoryview(bytearray(READ_SIZE))
    while (piece := _next_slice(batch)) is not None:
        transfer, position = piece.transfer, piece.start
        with transfer.open_hashed() as file:
            file.seek(position)
            while position < piece.stop and (count := file.readinto(buffer[: piece.stop - position])):
                piece.hasher.update(buffer[:count])
                position += count
        with batch.lock:
            if transfer.generation == piece.generation:
                if position < piece.stop:
                    raise DownloadError(f"{transfer.hashed_path} was changed by another program.")
                transfer.hashed = position
                _check_hashed(batch, transfer)


def find_digests(batch: Batch, finder: DigestFinder) -> None:
    """Ask the service for the digests of complete files until all files are done.

    Runs in a thread of its own. Raises NotVerified if no digest becomes known for too long.
    """
    pauses, previous = DigestPauses(), list[Transfer]()
    while _wait_for_files_without_digest(batch):
        with batch.lock:
            waiting, receiving = list(batch.without_digest), batch.is_receiving
        if waiting != previous or receiving:
            pauses.reset()
        digests = finder.find([transfer.source for transfer in waiting])
        found = {each: digest for each, digest in zip(waiting, digests, strict=True) if digest is not None}
        with batch.lock:
            for transfer, digest in found.items():
                del batch.without_digest[transfer]
                _judge(batch, transfer, digest)
        previous = [transfer for transfer in waiting if transfer not in found]
        if found:
            pauses.reset()
        pause = pauses.next([transfer.source for transfer in waiting])
        with suppress(Superseded):
            batch.wait(pause)


def _next_slice(batch: Batch) -> _Slice | None:
    """Wait for something to hash; None if the download ends."""
    with batch.lock:
        while not batch.stopping and not batch.is_finished:
            for transfer in batch.to_hash:
                start, available = transfer.hashed, transfer.hashable
                if start < available or transfer.is_received:
                    stop = min(available, start + SLICE)
                    return _Slice(transfer, transfer.generation, transfer.hasher, start, stop)
            batch.hashable.wait()
    return None


def _check_hashed(batch: Batch, transfer: Transfer) -> None:
    """Compare the digests of a file that is hashed to its end."""
    if not transfer.is_received or transfer.hashed < transfer.source.size:
        return
    transfer.sha256 = transfer.hasher.hexdigest()
    batch.to_hash.remove(transfer)
    batch.changed.notify_all()
    if transfer.expected is not None:
        _judge(batch, transfer, transfer.expected)
        return
    batch.without_digest[transfer] = None
    batch.changed.notify_all()
    if len(batch.without_digest) > MAX_OPEN and transfer.part is not None:
        transfer.part.suspend()


def _judge(batch: Batch, transfer: Transfer, digest: str) -> None:
    transfer.expected = digest
    if digest == transfer.sha256:
        batch.verified(transfer)
    elif transfer.exists:
        batch.differs(transfer)
    elif digest == REPLACED:
        batch.add_work(partial(replace, batch, transfer))
    else:
        batch.add_work(partial(discard, batch, transfer, "its SHA-256 is not that of the service"))


def _wait_for_files_without_digest(batch: Batch) -> bool:
    """Wait until the service is to be asked; return False if the download ends."""
    asked_at = monotonic()
    with batch.lock:
        while not batch.stopping and not batch.is_finished:
            waited = monotonic() - asked_at
            if batch.without_digest and (not batch.is_receiving or waited > WHILE_RECEIVING_S):
                return True
            batch.changed.wait(WHILE_RECEIVING_S if batch.without_digest else None)
    return False


class DigestPauses:
    """How long to wait before the service is asked for digests again; the pauses grow."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin with a short pause: a digest became known, or other files are waited for."""
        self._pause, self._started_at = FIRST_PAUSE_S, monotonic()

    def next(self, sources: Sequence[Source], *, kept: bool = True) -> float:
        """Return the seconds to wait. Raises NotVerified if no digest became known for too long."""
        patience = PATIENCE_S + max(source.size for source in sources) / PATIENCE_BYTES_PER_S
        if monotonic() - self._started_at > patience:
            raise not_verified(sources, kept=kept)
        pause, self._pause = self._pause, min(self._pause * 2, MAX_PAUSE_S)
        return pause


def not_verified(sources: Sequence[Source], *, kept: bool = True) -> NotVerified:
    """Return the error for files whose digests did not become known; `kept`: their part files remain."""
    name = sources[0].name
    others = f" and {len(sources) - 1} more files" if len(sources) > 1 else ""
    return NotVerified(
        f"{name}{others}: all bytes were received, but the service does not know the SHA-256 yet."
        + (" They are kept: the next download only verifies them." if kept else "")
    )
