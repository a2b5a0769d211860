"""Parse and check the text of one value.

An invalid value raises ValueError, whose message is a predicate ("is not a number") to follow the value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

from jobsvc.domain.job import Status
from jobsvc.storage.layout import OutputRoot
from jobsvc.web.ratelimit.sliding_window import parse_rate

YEAR_S: Final = 31_536_000
"""Seconds; upper limit of all durations, so that clocks and timers can represent every value."""

_BYTES: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(?:([kmgt])(i?))?b?", re.ASCII | re.IGNORECASE)
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_NUMBER: Final = re.compile(
    r"[+-]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})(e[+-]?[0-9]{1,3})?", re.ASCII | re.IGNORECASE
)
_WORDS: Final = ", ".join(Status)
_SWITCH: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


def host(text: str) -> str:
    """Accept a host name or address to listen on; whether this machine has it is checked when binding."""
    if not text or not text.isprintable() or " " in text:
        raise ValueError("is not a host name or address")
    return text


def path(text: str) -> Path:
    """Return an absolute path, with a leading ~ expanded; symbolic links are not resolved."""
    if not text or "\0" in text:
        raise ValueError("is not a path")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as exc:
        raise ValueError("is below an unknown home directory") from exc


def output_root(text: str) -> Path | OutputRoot:
    """Accept PATH, or OWNER=PATH with an absolute PATH; text that begins with /, ~ or . is always a path."""
    owner, equals, folder = text.partition("=")
    if owner and equals and not owner.startswith(("/", "~", ".")) and folder.startswith(("/", "~")):
        return OutputRoot(owner, path(folder))
    return path(text)


_PUBLIC_URL: Final = re.compile(
    r"https?://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
    r"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?"
)


def public_url(text: str) -> str:
    """Accept an http or https URL, with or without a path; a trailing slash is removed."""
    if not _PUBLIC_URL.fullmatch(text):
        raise ValueError("is not a URL such as https://render.example.com/farm")
    return text.rstrip("/")


_ORIGIN: Final = re.compile(
    r"(?!file:)[a-z][a-z0-9+.-]{0,31}://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?"
)
_DEFAULT_PORT: Final = re.compile(r"http:.*:80|https:.*:443")


def cors_origin(text: str) -> str:
    """Accept an origin exactly as browsers send it: lower case, without a default port and without a path.

    `*` and `null`, which any page can have, are refused.
    """
    if not _ORIGIN.fullmatch(text) or _DEFAULT_PORT.fullmatch(text):
        raise ValueError(
            "is not an origin such as https://portal.example.com"
            " (lower case, no path, no trailing slash, no port 80 for http or 443 for https)"
        )
    return text


_REDIS_URL: Final = re.compile(
    r"(rediss?://(?:[^/?#\s@]*@)?(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?"
    r"((?:/[0-9]{1,4})?(?:\?[^#\s]*)?)",
    re.ASCII,
)
_REDIS_PORT: Final = "6379"
_MAX_PORT: Final = 65_535


def redis_url(text: str) -> str:
    """Accept the URL of a Redis server, with user, password, database and the options of redis-py.

    The port is added if there is none: `limits` requires one.
    """
    match = _REDIS_URL.fullmatch(text)
    if match is None:
        raise ValueError("is not a URL such as redis://redis.example.com:6379/0")
    server, port, rest = match.groups(default="")
    if port and not 1 <= int(port) <= _MAX_PORT:
        raise ValueError(f"is a URL whose port is not from 1 to {_MAX_PORT}")
    return f"{server}:{port or _REDIS_PORT}{rest}"


def key_prefix(text: str) -> str:
    """Accept the beginning of keys in Redis; braces would change which cluster slot a key belongs to."""
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", text):
        raise ValueError("is not 1 to 64 letters, digits, dots, underscores, colons and hyphens")
    return text


def instance(text: str) -> str:
    """Accept the name of a process."""
    if not re.fullmatch(r"[A-Za-z0-9._:@-]{1,128}", text):
        raise ValueError("is not 1 to 128 letters, digits, dots, underscores, colons, at signs and hyphens")
    return text


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of integers from `low` to `high`."""

    def parse(text: str) -> int:
        if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError(f"is not an integer from {low} to {high}")
        return int(text)

    return parse


def seconds(low: float, high: float = YEAR_S) -> Callable[[str], float]:
    """Return a parser of seconds from `low` to `high`."""

    def parse(text: str) -> float:
        number = float(text) if _NUMBER.fullmatch(text) else math.nan
        if not low <= number <= high:
            raise ValueError(f"is not a number of seconds from {low:g} to {high}")
        return number

    return parse


def rate(text: str) -> str:
    """Accept a rate such as 600/minute: one number and one period."""
    parse_rate(text)
    return text


def byte_rate(text: str) -> int:
    """Accept bytes per second: 500000, 500k, 10M, 1.5G (powers of 1000) or 10Mi (powers of 1024).

    0 means no limit.
    """
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError("is not a number of bytes per second such as 500000, 500k, 10M or 10Mi")
    number, letter, binary = match.groups()
    unit: int = (1024 if binary else 1000) ** " kmgt".index((letter or " ").lower())
    amount = float(number) * unit
    if 0 < amount < 1 or amount > 2**53:
        raise ValueError("is neither from 1 to 2^53 bytes per second nor 0 (unlimited)")
    return round(amount)


def switch(text: str) -> bool:
    """Accept true or false, and the other words for them that environment variables have."""
    word = text.strip().lower()
    if word not in _SWITCH:
        raise ValueError("is neither true nor false")
    return _SWITCH[word]


def network(text: str) -> IPv4Network | IPv6Network:
    """Accept an address or a network in CIDR notation."""
    try:
        return ip_network(text)
    except ValueError as exc:
        raise ValueError("is not an address or a network without host bits, such as 10.0.0.0/8") from exc


def alias(text: str) -> tuple[str, Status]:
    """Accept WORD=STATUS; the word is converted to lower case, like a job's status before its lookup."""
    word, equals, status = (part.strip().lower() for part in text.partition("="))
    if not equals or not word or status not in set(Status):
        raise ValueError(f"is not WORD=STATUS, where STATUS is one of {_WORDS}")
    if word in set(Status):
        raise ValueError(f"is an alias of {word}, which is itself one of {_WORDS}")
    return word, Status(status)
