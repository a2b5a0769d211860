from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.job import Status
from jobsvc.settings import parsers


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (parsers.redis_url, "redis://host", "redis://host:6379"),
        (parsers.redis_url, "rediss://acl:p:w@[::1]/1?a=b", "rediss://acl:p:w@[::1]:6379/1?a=b"),
        (parsers.redis_url, "redis://:6380@host:65535/0", "redis://:6380@host:65535/0"),
        (parsers.host, "0.0.0.0", "0.0.0.0"),  # noqa: S104 - parsed, not bound
        (parsers.host, "::1", "::1"),
        (parsers.integer(0, 65_535), "0", 0),
        (parsers.integer(0, 65_535), "65535", 65_535),
        (parsers.seconds(0), "0", 0),
        (parsers.seconds(0), "1.5", 1.5),
        (parsers.seconds(0), ".5", 0.5),
        (parsers.seconds(0), "1e3", 1000),
        (parsers.rate, "600/minute", "600/minute"),
        (parsers.rate, "1/second", "1/second"),
        (parsers.public_url, "https://render.example.com", "https://render.example.com"),
        (parsers.public_url, "https://render.example.com/farm/", "https://render.example.com/farm"),
        (parsers.public_url, "http://[::1]:8080/a%20b/c", "http://[::1]:8080/a%20b/c"),
        (parsers.cors_origin, "https://portal.example.com", "https://portal.example.com"),
        (parsers.cors_origin, "http://localhost:3000", "http://localhost:3000"),
        (parsers.cors_origin, "http://[::1]:443", "http://[::1]:443"),
        (parsers.cors_origin, "tauri://localhost", "tauri://localhost"),
        (parsers.byte_rate, "0", 0),
        (parsers.byte_rate, "500000", 500_000),
        (parsers.byte_rate, "500k", 500_000),
        (parsers.byte_rate, "500K", 500_000),
        (parsers.byte_rate, "10M", 10_000_000),
        (parsers.byte_rate, "10MB", 10_000_000),
        (parsers.byte_rate, "10Mi", 10 * 1024**2),
        (parsers.byte_rate, "10MiB", 10 * 1024**2),
        (parsers.byte_rate, "1.5G", 1_500_000_000),
        (parsers.network, "10.0.0.0/8", ip_network("10.0.0.0/8")),
        (parsers.network, "::1", ip_network("::1/128")),
        (parsers.alias, "Paused=queued", ("paused", Status.QUEUED)),
        (parsers.alias, " on hold = Queued ", ("on hold", Status.QUEUED)),
        (parsers.path, "/a/b", Path("/a/b")),
    ],
)
def test_valid_value_is_accepted(parse: Callable[[str], Any], text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (parsers.host, ("", "a b", "a\nb", "a\0")),
        (parsers.integer(1, 10), ("", "0", "11", "-1", "1.0", "1e1", "one", "\u0661", "1" * 5000, " 1")),
        (parsers.seconds(0), ("", "-1", "nan", "inf", "1e300", "1s", "1_000", "31536001", "9" * 5000)),
        (
            parsers.rate,
            ("", "600", "0/minute", "600/fortnight", "5/second;100/minute", "6 per day", "-1/day"),
        ),
        (
            parsers.public_url,
            (
                *(
                    "",
                    "render.example.com",
                    "ftp://a",
                    "https://",
                    "https:///farm",
                    "https://a//b",
                    "https://a/../b",
                ),
                *(
                    "https://a?b",
                    "https://a#b",
                    "https://u@a",
                    "https://a b",
                    'https://a/"',
                    "https://a/\n",
                    "//a",
                ),
            ),
        ),
        (
            parsers.cors_origin,
            (
                *(
                    "",
                    "*",
                    "null",
                    "portal.example.com",
                    "https://",
                    "https://a/",
                    "https://a/b",
                    "https://a ",
                ),
                *("https://a:443", "http://a:80", "https://[::1]:443", "https://a:0443", "https://a:"),
                *("HTTPS://a", "https://A", "https://u@a", "https://*.a", "https://a,https://b"),
                *("file://", "file://a", "https://a\n", "https://a\r\nX: y", "https://b\u00fccher.example"),
            ),
        ),
        (parsers.byte_rate, ("", "-1", "10X", "10Mib/s", "0.1", "1i", "nan", "9" * 15 + "T")),
        (parsers.network, ("", "10.0.0.1/8", "10.0.0.0/33", "proxy.example", "::1%eth0/64")),
        (
            parsers.alias,
            ("", "paused", "paused=", "=queued", "paused=sleeping", "completed=failed", "a=done"),
        ),
        (parsers.path, ("", "a\0b", "~nobody-of-this-name/x")),
    ],
)
def test_invalid_value_is_refused_with_a_sentence(
    parse: Callable[[str], Any], texts: tuple[str, ...]
) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=r"^is "):
            parse(text)


@given(st.text(max_size=40))
def test_no_text_raises_another_error(text: str) -> None:
    checks: tuple[Callable[[str], Any], ...] = (
        parsers.host,
        parsers.path,
        parsers.integer(0, 9),
        parsers.seconds(0),
        parsers.rate,
        parsers.byte_rate,
        parsers.network,
        parsers.alias,
    )
    for parse in checks:
        with suppress(ValueError):
            parse(text)


def test_path_is_made_absolute_and_a_tilde_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/farm")
    assert parsers.path("jobs") == tmp_path / "jobs"
    assert parsers.path("~/jobs") == Path("/home/farm/jobs")
