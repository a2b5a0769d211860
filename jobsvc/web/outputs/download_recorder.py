"""Count each download in the metrics, and write a line to the download log for it."""

from __future__ import annotations

import time
from functools import partial

from aiohttp import web
from multidict import MultiMapping

from jobsvc.domain.job import Job
from jobsvc.observe import request_id, trace
from jobsvc.observe.download_log import DownloadLog, DownloadRecord, Outcome
from jobsvc.observe.metrics import Metrics
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.auth.signed_links import LINK
from jobsvc.web.file_transfer.file_response import OnFinished
from jobsvc.web.file_transfer.selection import FileSelection, ranges_sent
from jobsvc.web.file_transfer.transfer_state import TransferState


class DownloadRecorder:
    """Records downloads when they end."""

    def __init__(self, log: DownloadLog, metrics: Metrics, client_addresses: ClientAddresses) -> None:
        self._log = log
        self._client_addresses = client_addresses
        self._bytes = metrics.download_bytes
        self._outcomes = {outcome: metrics.downloads.labels(outcome) for outcome in Outcome}

    def on_finished(self, request: web.Request, job: Job, selection: FileSelection) -> OnFinished:
        """Return the callback that records the end of the response to a request."""
        client = self._client_addresses.address_of(request)
        return partial(self.record, client, job, selection, link=request.get(LINK), headers=request.headers)

    def record(
        self,
        client: str | None,
        job: Job,
        selection: FileSelection,
        state: TransferState,
        outcome: Outcome,
        *,
        link: str | None,
        headers: MultiMapping[str],
    ) -> None:
        """Record the end of a download by the client at this address; `headers` are those of the request."""
        self._outcomes[outcome].inc()
        self._bytes.inc(state.sent)
        self._log.write(
            DownloadRecord(  # in order: keywords cost 2 µs more
                state.started_at,
                request_id.current() or "",
                state.token.id,
                job.owner,
                job.id,
                selection.name,
                selection.selected.etag,
                ranges_sent(selection),
                state.sent,
                state.expected,
                time.time() - state.started_at,
                outcome,
                client,
                link,
                headers.getall(trace.HEADER, ()),
            )
        )
