"""What is done with a file before and after its bytes are received."""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path
from time import monotonic

from jobsvc.client.download.local.part_file import PartFile, part_paths, remove_leftovers
from jobsvc.client.download.local.placement import already_exists, free_name, place
from jobsvc.client.download.options import DownloadOptions
from jobsvc.client.download.source import Source
from jobsvc.client.download.transfer.batch import Batch
from jobsvc.client.download.transfer.file_transfer import Transfer
from jobsvc.client.download.transfer.receiver import SegmentReceiver
from jobsvc.client.download.transfer.responses import Replaced
from jobsvc.client.download.transfer.starting_over import discard, replace, restart
from jobsvc.client.errors import Corrupt, FileExists, NotVerified
from jobsvc.client.models import Downloaded


class FileSteps:
    """Opens part files, and gives complete files their names."""

    def __init__(
        self,
        options: DownloadOptions,
        find_current: Callable[[Source], Source],
        targets: Container[Path] = (),
        inspect: Callable[[Batch, Transfer], object] | None = None,
    ) -> None:
        """`targets`: of all files.

        `inspect` checks a complete part file, and raises Corrupt or Replaced.
        """
        self.find_current = find_current
        self._options = options
        self._targets = targets
        self._inspect = inspect

    def begin(self, batch: Batch, transfer: Transfer) -> None:
        """Open the part file, unless an existing target is only compared. Raises DownloadError."""
        transfer.started_at = monotonic()
        if not transfer.exists:
            transfer.check_directory()
            part = PartFile(transfer.paths, transfer.source, is_verified=self._options.verify)
            transfer.part = part
            if batch.stopping:
                part.close()
                return
        batch.begun(transfer)

    def receiver(self, batch: Batch, transfer: Transfer, start: int, stop: int) -> SegmentReceiver:
        """Create a receiver for a segment."""
        return SegmentReceiver(batch, transfer, start, stop)

    def finish(self, batch: Batch, transfer: Transfer) -> None:
        """Name a complete file. Raises DownloadError."""
        if transfer.exists:
            remove_leftovers(transfer.paths, transfer.source)
            batch.finished(transfer, self._describe(transfer, transfer.target, skipped=True))
            return
        part = transfer.opened
        if not part.resume():
            restart(batch, transfer, transfer.source)
            return
        if self._inspect is not None:
            try:
                self._inspect(batch, transfer)
            except NotVerified:
                raise
            except Corrupt as exc:
                discard(batch, transfer, str(exc))
                return
            except Replaced:
                replace(batch, transfer)
                return
        if batch.stopping:
            return
        transfer.check_directory()
        try:
            path, skipped = place(part, transfer.target, self._options.exists), False
        except FileExists:
            if self._options.exists != "skip":
                raise
            part.remove()
            path, skipped = transfer.target, True
        batch.finished(transfer, self._describe(transfer, path, skipped=skipped))

    def differs(self, transfer: Transfer) -> None:
        """Decide what happens to a target that exists with other bytes. Raises FileExists."""
        if self._options.exists == "error":
            raise already_exists(transfer.target)
        if self._options.exists == "rename":
            transfer.target = free_name(transfer.target, transfer.source, self._targets)
            transfer.paths = part_paths(transfer.target)

    def _describe(self, transfer: Transfer, path: Path, *, skipped: bool) -> Downloaded:
        source = transfer.source
        return Downloaded(
            path,
            source.job_id,
            source.output,
            path.stat().st_size if skipped else source.size,
            source.etag,
            transfer.sha256 if _is_verified(transfer) else None,
            0 if transfer.part is None else transfer.part.resumed_from,
            monotonic() - transfer.started_at,
            skipped,
        )


def _is_verified(transfer: Transfer) -> bool:
    """Return whether the bytes were compared with the service's digest."""
    return transfer.sha256 is not None and transfer.sha256 == transfer.expected
