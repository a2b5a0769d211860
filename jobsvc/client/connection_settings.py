"""Define how to reach a service, and check the URL and the token."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from jobsvc import __version__
from jobsvc.client.errors import BadConfiguration
from jobsvc.domain.trace_context import HEADER

EXAMPLE_URL: Final = "https://render.example.com"

_VISIBLE_ASCII: Final = re.compile(r"[!-~]+")
_HOST: Final = re.compile(r"[A-Za-z0-9_~:-][A-Za-z0-9._~:-]*")
"""Names and addresses; IPv6 without its brackets."""


class ConnectionSettings(NamedTuple):
    """How to reach a service, after arguments, environment and profile are merged."""

    base_url: str
    """`https://host[:port][/prefix]`, without a slash at the end and without `/api`."""
    token: str
    timeout: float = 30.0
    """Seconds without a byte until a connection counts as dead."""
    retries: int = 5
    """Attempts after the first one, before a request fails; counted anew after each byte of progress."""
    ca_file: str | None = None
    """PEM file of certificates to trust instead of the system's."""
    traceparent: str | None = None
    """Sent with each request (W3C Trace Context)."""

    @property
    def headers(self) -> dict[str, str]:
        """Header fields of each request."""
        fields = {
            "User-Agent": f"jobsvc/{__version__}",
            "Accept-Encoding": "identity",
            "Authorization": f"Bearer {self.token}",
        }
        return fields if self.traceparent is None else {**fields, HEADER: self.traceparent}

    def __repr__(self) -> str:
        """Omit the token."""
        return f"{type(self).__name__}({self.base_url!r})"


def normalize_url(url: str) -> str:
    """Return a base URL in the form that ConnectionSettings has. Raises BadConfiguration."""
    text = url.strip()
    if re.search(r"[\x00-\x20\x7f]", text):
        raise _bad_url(url, "contains a space or a control character")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _bad_url(url, "has an invalid host or port") from None
    _check_parts(url, parts)
    path = parts.path.rstrip("/").removesuffix("/api").rstrip("/")
    if path and not _VISIBLE_ASCII.fullmatch(path):
        raise _bad_url(url, "has a path with characters that must be percent-encoded")
    host = _ascii_host(url, host or "")
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{path}"


def normalize_token(token: str, source: str) -> str:
    """Return a token without surrounding whitespace. Raises BadConfiguration, with `source` in its text."""
    token = token.strip()
    if not token:
        raise BadConfiguration(f"The token from {source} is empty.")
    if not _VISIBLE_ASCII.fullmatch(token):
        raise BadConfiguration(
            f"The token from {source} contains a space, a control character or a character outside of ASCII: "
            "copy it again."
        )
    return token


def _check_parts(url: str, parts: SplitResult) -> None:
    if "@" in parts.netloc:
        raise _bad_url(url, "contains a user name or a password; the token is given separately")
    if "://" not in url:
        raise _bad_url(url, "has no http:// or https:// at its start")
    if parts.scheme not in {"http", "https"}:
        raise _bad_url(url, "does not start with http:// or https://")
    if not parts.hostname or parts.port == 0:
        raise _bad_url(url, "has an invalid host or port")
    if "?" in url or "#" in url:
        raise _bad_url(url, "contains a query or a fragment")


def _ascii_host(url: str, host: str) -> str:
    """Encode a name with other letters as IDNA, and put an IPv6 address in brackets."""
    try:
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise _bad_url(url, "has an invalid host or port")
    return f"[{host}]" if ":" in host else host


def _bad_url(url: str, problem: str) -> BadConfiguration:
    """Name the URL without a password, and without a query or fragment, which can contain a token."""
    shown = re.sub(r"[?#].*", "", url, flags=re.DOTALL)
    shown = re.sub(r"(//|^)[^/]*@", r"\1***@", shown)
    return BadConfiguration(f"The URL {shown!r} {problem}. A valid URL is {EXAMPLE_URL}.")
