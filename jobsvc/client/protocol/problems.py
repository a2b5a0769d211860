"""Convert responses that are no success to exceptions: problem documents, errors of proxies, redirects.

A message contains nothing of a body that is not a problem document: proxies send HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import time
from typing import Any, Final, NoReturn

from jobsvc.client.errors import Problem, UnexpectedResponse, problem_class

NOT_MODIFIED: Final = 304

_CODE: Final = re.compile(r"[a-z][a-z0-9-]{0,63}", re.ASCII)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][\w ./()+-]{0,63}", re.ASCII)
"""Names of servers and media types that are shown as they are."""
_ORIGIN: Final = re.compile(
    r"(https?)://(?:[^/?#@]*@)?([\w.:\[\]-]{1,255})(?=[/?#]|$)", re.ASCII | re.IGNORECASE
)
_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_MAX_TEXT: Final = 1000
"""Characters of a detail that are shown."""


def is_success(status: int) -> bool:
    """Return whether a response has what was requested: 2xx, or 304 to a condition."""
    return 200 <= status < 300 or status == NOT_MODIFIED  # noqa: PLR2004 - RFC 9110, section 15.3


def problem_of(status: int, headers: Mapping[str, str], body: bytes, target: str) -> Problem:
    """Return the exception for a response that is no success; `target` is what was requested."""
    document = _problem_document(headers, body)
    request_id = document.get("requestId") or headers.get("x-request-id")
    code, detail = document.get("code"), document.get("detail")
    if not isinstance(code, str) or not _CODE.fullmatch(code) or not isinstance(detail, str):
        code, detail = f"http-{status}", _describe(status, headers, target)
    return problem_class(code, status)(
        code,
        status,
        printable(detail, _MAX_TEXT),
        printable(request_id, 128) if isinstance(request_id, str) else None,
        retry_after(headers),
    )


def refuse(headers: Mapping[str, str], expected: str) -> NoReturn:
    """Raise UnexpectedResponse: a success whose body is not what the service sends."""
    kind = _plain(headers.get("content-type", "").partition(";")[0]) or "without a media type"
    raise UnexpectedResponse(
        f"The response{_by(headers)} is {kind}, not the {expected} of jobsvc."
        " Check JOBSVC_URL, and whether a proxy or a sign-in page of the network responds in its place."
    )


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds of Retry-After, from the response's Date if it is a date; None if there are none.

    `now` replaces the current time, in seconds since the epoch.
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    if not text or (until := _parse_date(text)) is None:
        return None
    sent = _parse_date(headers.get("date", ""))
    return max(0.0, until - (sent if sent is not None else time() if now is None else now))


def printable(text: str, limit: int) -> str:
    """Return a text for a terminal: one line, without control characters, shortened."""
    plain = "".join(char if char.isprintable() else " " for char in text[:limit])
    return f"{plain}…" if len(text) > limit else plain


def _problem_document(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    if "application/problem+json" not in headers.get("content-type", "").lower():
        return {}
    import json  # noqa: PLC0415 - errors are rare, and importing takes 3 ms

    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _describe(status: int, headers: Mapping[str, str], target: str) -> str:
    if 300 <= status < 400:  # noqa: PLR2004 - RFC 9110, section 15.4
        return _describe_redirect(status, headers.get("location", ""), target)
    from http import HTTPStatus  # noqa: PLC0415 - as above

    phrase = f" {HTTPStatus(status).phrase}" if status in {each.value for each in HTTPStatus} else ""
    if status >= 500 or status in {401, 403, 407, 408, 425, 429}:  # noqa: PLR2004 - RFC 9110, section 15.6
        return f"A server in front of jobsvc responded with {status}{phrase}{_by(headers)}."
    return f"{status}{phrase}{_by(headers)}: this is not a response of jobsvc. Check JOBSVC_URL."


def _describe_redirect(status: int, location: str, target: str) -> str:
    """Name the origin of Location only: the rest of it can contain secrets of a sign-in."""
    match = _ORIGIN.match(location)
    if match is None:
        return f"{status}: redirected to another path of the same server. Set JOBSVC_URL to jobsvc itself."
    origin = f"{match[1].lower()}://{match[2]}"
    prefix = location[match.end() : -len(target)] if location.endswith(target) else ""
    if _PLAIN_NAME.fullmatch(prefix.removeprefix("/")):
        origin += prefix
    return (
        f"{status}: redirected to {origin}. Set JOBSVC_URL to the URL of jobsvc; redirects are not followed."
    )


def _by(headers: Mapping[str, str]) -> str:
    server = _plain(headers.get("server", ""))
    return f" (by {server})" if server else ""


def _plain(name: str) -> str:
    return name.strip() if _PLAIN_NAME.fullmatch(name.strip()) else ""


def _parse_date(text: str) -> float | None:
    """Parse an HTTP-date to seconds since the epoch; None if it is invalid."""
    from datetime import UTC  # noqa: PLC0415 - rarely needed
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - importing takes 10 ms

    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
