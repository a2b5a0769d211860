"""Discard what was received of a file, and receive it once more: the same version or the current one.

Called by the only receiver of the file, after `claim`, or by a worker while it has none.
"""

from __future__ import annotations

from typing import Final

from jobsvc.client.download.source import Source
from jobsvc.client.download.transfer.batch import Batch
from jobsvc.client.download.transfer.file_transfer import Receiver, Superseded, Transfer
from jobsvc.client.errors import Corrupt, OutputReplaced

MAX_REPLACED: Final = 5
"""Times that a file may be replaced while it is downloaded."""
MAX_DISCARDED: Final = 1
"""Times that a file is received once more because its bytes were wrong."""


def claim(batch: Batch, transfer: Transfer, receiver: Receiver) -> None:
    """Wait until this is the only receiver of a file. Raises Superseded if another one was faster."""
    with batch.lock:
        if receiver.is_superseded:
            raise Superseded
        transfer.generation += 1
        receiver.generation = transfer.generation
        transfer.segments.clear()
        for other in transfer.receivers - {receiver}:
            other.interrupt()
        batch.changed.notify_all()
        while transfer.receivers != {receiver}:
            batch.changed.wait()
            if batch.stopping:
                raise Superseded


def restart(batch: Batch, transfer: Transfer, source: Source, receiver: Receiver | None = None) -> None:
    """Receive a version of the file from its start; `receiver` alone, if it is given."""
    with batch.lock:
        transfer.generation += 1  # what is hashed at this moment is discarded
        if transfer in batch.to_hash:
            batch.to_hash.remove(transfer)
    transfer.opened.resume()
    transfer.opened.restart(source)
    batch.receive_anew(transfer, source, receiver)


def discard(batch: Batch, transfer: Transfer, reason: str) -> None:
    """Receive the same version once more.

    Raises Corrupt, and removes the part file, if that was done already.
    """
    transfer.discarded_count += 1
    if transfer.discarded_count > MAX_DISCARDED:
        transfer.opened.resume()
        transfer.opened.remove()
        name = f"{transfer.source.name} of job {transfer.source.job_id}"
        raise Corrupt(f"{name} is not right: {reason.rstrip('.')}.")
    restart(batch, transfer, transfer.source)


def replace(batch: Batch, transfer: Transfer) -> None:
    """Receive the current version. Raises OutputReplaced if the file was replaced too often."""
    source = transfer.source
    transfer.replaced_count += 1
    if transfer.replaced_count > MAX_REPLACED:
        raise OutputReplaced(
            "output-replaced", 412, f"{source.name} of job {source.job_id} was replaced again and again."
        )
    restart(batch, transfer, batch.steps.find_current(source))
