"""Operations of single requests: jobs, files, links and the token."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urljoin

from jobsvc.client.errors import UnexpectedResponse
from jobsvc.client.models import Job, Link, TokenInfo
from jobsvc.client.protocol.documents import (
    objects,
    optional_text,
    to_file,
    to_job,
    to_link,
    to_requested_job,
    to_token_info,
)
from jobsvc.client.protocol.retry import send_for_json
from jobsvc.client.protocol.steps import Emit, Operation, Request
from jobsvc.client.protocol.targets import JOBS, ME, job_target, with_query

JOBS_PER_PAGE: Final = 200
FILES_PER_PAGE: Final = 1000
MAX_FILES: Final = 2_000_000
"""Files of a job; the service lists at most 100,000 of an output."""
MAX_EMPTY_PAGES: Final = 100
"""Pages without an element in a row, after which a list counts as endless."""

_WANT_DIGESTS: Final = {"want-repr-digest": "sha-256=1"}
_JSON: Final = {"content-type": "application/json"}
_NO_CACHE: Final = {"cache-control": "no-cache"}


def list_jobs(
    retries: int,
    *,
    status: Iterable[str] = (),
    updated_since: datetime | str | None = None,
    limit: int | None = None,
) -> Operation[None]:
    """Emit each Job of the list, newest first, at most `limit`."""
    query: list[tuple[str, object]] = [("status", each) for each in status]
    query.append(("updatedSince", _format_time(updated_since)))
    left = sys.maxsize if limit is None else limit
    pages = _Pages(retries, JOBS)
    while pages.has_more and left > 0:
        page = yield from pages.next("jobs", [*query, ("limit", min(left, JOBS_PER_PAGE))])
        for document in page[:left]:
            yield Emit(to_job(document))
        left -= len(page)


def get_job(retries: int, job_id: str, *, fresh: bool = False) -> Operation[Job]:
    """Return a job; `fresh` reads the disk instead of the index. Raises JobNotFound."""
    request = Request(job_target(job_id), headers=_NO_CACHE if fresh else {})
    document, headers = yield from send_for_json(request, retries)
    return to_requested_job(document, job_id, headers.get("etag"))


def list_files(
    retries: int, job_id: str, *, output: Iterable[str] = (), want_digests: bool = False
) -> Operation[None]:
    """Emit each File of a job's outputs; `want_digests` requests their SHA-256. Raises NotReady."""
    query: list[tuple[str, object]] = [("output", name) for name in output]
    query.append(("limit", FILES_PER_PAGE))
    pages = _Pages(retries, job_target(job_id, "files"), _WANT_DIGESTS if want_digests else {})
    count = 0
    while pages.has_more:
        page = yield from pages.next("files", query)
        count += len(page)
        if count > MAX_FILES:
            raise UnexpectedResponse(f"{job_id} has more than {MAX_FILES:,} files: the list seems endless.")
        for document in page:
            yield Emit(to_file(job_id, document))


def create_link(
    retries: int,
    base_url: str,
    job_id: str,
    *,
    expires_in: int = 3600,
    file: str | None = None,
    archive: str | None = None,
) -> Operation[Link]:
    """Create a download link."""
    wanted = {"expiresIn": expires_in, "file": file, "archive": archive}
    body = json.dumps({name: value for name, value in wanted.items() if value is not None}).encode()
    target = job_target(job_id, "download-links")
    document, _ = yield from send_for_json(Request(target, "POST", _JSON, body), retries)
    link = to_link(document)
    try:
        return link._replace(url=urljoin(base_url + target, link.url))
    except ValueError as exc:
        raise UnexpectedResponse("The service created a link that is not a URL.") from exc


def get_token_info(retries: int) -> Operation[TokenInfo]:
    """Return what the service knows of the token."""
    document, _ = yield from send_for_json(Request(ME), retries)
    return to_token_info(document)


class _Pages:
    """Requests the pages of a list, one after the other."""

    def __init__(self, retries: int, path: str, headers: Mapping[str, str] | None = None) -> None:
        self.has_more = True
        self._retries = retries
        self._path = path
        self._headers = headers or {}
        self._cursor: str | None = None
        self._cursors: set[str] = set()
        """All that were used, so that a list that leads in a circle ends."""
        self._empty = 0
        """Pages without an element in a row."""

    def next(self, member: str, query: list[tuple[str, object]]) -> Operation[list[dict[str, Any]]]:
        """Return the elements of the next page, which are in that member of the response."""
        target = with_query(self._path, [*query, ("cursor", self._cursor)])
        document, _ = yield from send_for_json(Request(target, headers=self._headers), self._retries)
        elements, cursor = objects(document, member), optional_text(document, "nextCursor")
        self._empty = 0 if elements else self._empty + 1
        if cursor in self._cursors or self._empty > MAX_EMPTY_PAGES:
            raise UnexpectedResponse("The list does not advance: a proxy sends the same page again.")
        if cursor is not None:
            self._cursors.add(cursor)
        self._cursor, self.has_more = cursor, cursor is not None
        return elements


def _format_time(moment: datetime | str | None) -> str | None:
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None:
        raise ValueError("updated_since needs a time zone: datetime.now(UTC)")
    return moment.isoformat()
