"""Convert the JSON of the service to models. Pure.

A document that lacks a required member, or has one of another type, is an UnexpectedResponse: something else
than the service sent it, or a service that this client does not know.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from jobsvc.client.errors import UnexpectedResponse
from jobsvc.client.models import Document, File, Job, Link, TokenInfo
from jobsvc.domain.timestamp import parse_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT: Final = (1 << 63) - 1
_FIELD_VALUE: Final = re.compile(r"[ -~\x80-\xff]*")


def parse_object(data: bytes | str) -> dict[str, Any]:
    """Parse a JSON object. Raises UnexpectedResponse."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise _invalid("it cannot be parsed") from exc
    if not isinstance(document, dict):
        raise _invalid("it is not an object")
    return document


def to_job(document: Document, etag: str | None = None) -> Job:
    """Convert a job. Raises UnexpectedResponse."""
    for name in ("error", "logs", "downloadUrl"):
        optional_text(document, name)
    for output in objects(document, "outputs", required=False):
        for name in ("name", "role", "kind"):
            text(output, name)
        _optional_count(output, "size")
        optional_text(output, "contentType")
    return Job(
        id=text(document, "id"),
        status=text(document, "status"),
        progress=_number(document, "progress"),
        created_at=_time(document, "createdAt"),
        updated_at=_time(document, "updatedAt"),
        etag=etag,
        document=document,
    )


def to_requested_job(document: Document, job_id: str, etag: str | None) -> Job:
    """Convert the response to a request for this job. Raises UnexpectedResponse, also for another job."""
    job = to_job(document, etag)
    if job.id != job_id:
        raise UnexpectedResponse(f"The response is the job {job.id}, not {job_id}: a proxy confuses them.")
    return job


def to_file(job_id: str, document: Document) -> File:
    """Convert an element of a list of files. Raises UnexpectedResponse."""
    return File(
        job_id=job_id,
        output=text(document, "output"),
        path=text(document, "path"),
        frame=_optional_count(document, "frame"),
        size=_count(document, "size"),
        modified_at=_time(document, "modifiedAt"),
        content_type=text(document, "contentType"),
        etag=_etag(document),
        sha256=optional_text(document, "sha256"),
    )


def to_link(document: Document) -> Link:
    """Convert a link; its URL may be relative. Raises UnexpectedResponse."""
    return Link(text(document, "url"), _time(document, "expiresAt"), text(document, "id"))


def to_token_info(document: Document) -> TokenInfo:
    """Convert what the service knows of a token. Raises UnexpectedResponse."""
    scopes = document.get("scopes")
    if not isinstance(scopes, list) or not all(isinstance(each, str) for each in scopes):
        raise _invalid("scopes is not a list of names")
    return TokenInfo(
        id=text(document, "id"),
        owner=text(document, "owner"),
        scopes=tuple(scopes),
        label=optional_text(document, "label"),
        expires_at=None if document.get("expiresAt") is None else _time(document, "expiresAt"),
        document=document,
    )


def text(document: Document, name: str) -> str:
    """Return a member that is a text. Raises UnexpectedResponse."""
    value = document.get(name)
    if not isinstance(value, str):
        raise _invalid(f"{name} is not a text")
    return value


def optional_text(document: Document, name: str) -> str | None:
    """Return a member that is a text; None if it is absent or null. Raises UnexpectedResponse."""
    return None if document.get(name) is None else text(document, name)


def objects(document: Document, name: str, *, required: bool = True) -> list[dict[str, Any]]:
    """Return a member that is a list of objects. Raises UnexpectedResponse."""
    value = document.get(name, None if required else [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _invalid(f"{name} is not a list of objects")
    return value


def _number(document: Document, name: str) -> float:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_COUNT:
        raise _invalid(f"{name} is not a number")  # or NaN
    return float(value)


def _count(document: Document, name: str) -> int:
    value = document.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        raise _invalid(f"{name} is not a count")
    return value


def _etag(document: Document) -> str:
    """Return an entity tag, which requests contain."""
    value = text(document, "etag")
    if not _FIELD_VALUE.fullmatch(value):
        raise _invalid("etag is not the value of a header")
    return value


def _optional_count(document: Document, name: str) -> int | None:
    return None if document.get(name) is None else _count(document, name)


def _time(document: Document, name: str) -> datetime:
    """Return a member that is an RFC 3339 date-time, with its time zone."""
    value = text(document, name)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment
    except ValueError:
        pass  # a leap second, or no time at all
    try:
        return _EPOCH + timedelta(microseconds=parse_time(value))
    except (ValueError, OverflowError) as exc:
        raise _invalid(f"{name} is not an RFC 3339 time") from exc


def _invalid(what: str) -> UnexpectedResponse:
    return UnexpectedResponse(
        f"The response is JSON, but not of jobsvc: {what}."
        " Check JOBSVC_URL, and whether this client is as new as the service."
    )
