"""Complete the URL of Redis with the password in the secrets directory, and hide passwords in URLs.

The password of `--shared-state` is best kept in the file `shared-state-password`: command lines and
environments are visible to other programs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

from jobsvc.storage.layout import SHARED_STATE_PASSWORD_FILE
from jobsvc.storage.state import private_file

MAX_PASSWORD_BYTES: Final = 4096
_HIDDEN: Final = "***"


class BadPasswordFile(Exception):
    """The password cannot be used; the message names the file and the problem, and quotes no content."""


class BadOptions(Exception):
    """The URL of Redis has options that redis-py does not accept."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(f"the URL of --shared-state has invalid options: {reason}")


def complete_url(url: str, secrets_dir: Path | None) -> str:
    """Return the URL with the password in the secrets directory, if it has none and there is one. Blocking.

    Raises BadPasswordFile, never OSError.
    """
    if secrets_dir is None or _has_password(url):
        return url
    path = secrets_dir / SHARED_STATE_PASSWORD_FILE
    with private_file.errors_as(BadPasswordFile, path):
        try:
            text = private_file.read_private(path, MAX_PASSWORD_BYTES, shared=True)
        except FileNotFoundError:
            return url
        password = text.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")
        if not password or not password.isprintable():
            raise ValueError("not one line of printable characters")
    return _with_password(url, password)


def hide_password(url: str) -> str:
    """Return the URL to show to people: with asterisks for the password, and without the query."""
    parts = urlsplit(url)
    query = _HIDDEN if parts.query else ""
    if parts.password is not None:
        return parts._replace(netloc=_netloc(url, _HIDDEN), query=query).geturl()
    return parts._replace(query=query).geturl()


def _has_password(url: str) -> bool:
    parts = urlsplit(url)
    return parts.password is not None or any(name == "password" for name, _ in parse_qsl(parts.query))


def _with_password(url: str, password: str) -> str:
    return urlsplit(url)._replace(netloc=_netloc(url, quote(password, safe=""))).geturl()


def _netloc(url: str, password: str) -> str:
    parts = urlsplit(url)
    return f"{parts.username or ''}:{password}@{parts.netloc.rpartition('@')[2]}"
