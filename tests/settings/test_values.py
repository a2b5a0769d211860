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
from jobsvc.settings import values


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (values.host, "0.0.0.0", "0.0.0.0"),  # noqa: S104 - parsed, not bound
        (values.host, "::1", "::1"),
        (values.whole(0, 65_535), "0", 0),
        (values.whole(0, 65_535), "65535", 65_535),
        (values.seconds(0), "0", 0),
        (values.seconds(0), "1.5", 1.5),
        (values.seconds(0), ".5", 0.5),
        (values.seconds(0), "1e3", 1000),
        (values.rate, "600/minute", "600/minute"),
        (values.rate, "1/second", "1/second"),
        (values.public_url, "https://render.example.com", "https://render.example.com"),
        (values.public_url, "https://render.example.com/farm/", "https://render.example.com/farm"),
        (values.public_url, "http://[::1]:8080/a%20b/c", "http://[::1]:8080/a%20b/c"),
        (values.byte_rate, "0", 0),
        (values.byte_rate, "500000", 500_000),
        (values.byte_rate, "500k", 500_000),
        (values.byte_rate, "500K", 500_000),
        (values.byte_rate, "10M", 10_000_000),
        (values.byte_rate, "10MB", 10_000_000),
        (values.byte_rate, "10Mi", 10 * 1024**2),
        (values.byte_rate, "10MiB", 10 * 1024**2),
        (values.byte_rate, "1.5G", 1_500_000_000),
        (values.network, "10.0.0.0/8", ip_network("10.0.0.0/8")),
        (values.network, "::1", ip_network("::1/128")),
        (values.alias, "Paused=queued", ("paused", Status.QUEUED)),
        (values.alias, " on hold = Queued ", ("on hold", Status.QUEUED)),
        (values.path, "/a/b", Path("/a/b")),
    ],
)
def test_a_right_value_is_taken(parse: Callable[[str], Any], text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "texts"),
    [
        (values.host, ("", "a b", "a\nb", "a\0")),
        (values.whole(1, 10), ("", "0", "11", "-1", "1.0", "1e1", "one", "\u0661", "1" * 5000, " 1")),
        (values.seconds(0), ("", "-1", "nan", "inf", "1e300", "1s", "1_000", "31536001", "9" * 5000)),
        (
            values.rate,
            ("", "600", "0/minute", "600/fortnight", "5/second;100/minute", "6 per day", "-1/day"),
        ),
        (
            values.public_url,
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
        (values.byte_rate, ("", "-1", "10X", "10Mib/s", "0.1", "1i", "nan", "9" * 15 + "T")),
        (values.network, ("", "10.0.0.1/8", "10.0.0.0/33", "proxy.example", "::1%eth0/64")),
        (values.alias, ("", "paused", "paused=", "=queued", "paused=sleeping", "completed=failed", "a=done")),
        (values.path, ("", "a\0b", "~nobody-of-this-name/x")),
    ],
)
def test_a_wrong_value_is_refused_in_a_sentence(parse: Callable[[str], Any], texts: tuple[str, ...]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=r"^(is|is not|is no|gives|names) "):
            parse(text)


@given(st.text(max_size=40))
def test_no_text_makes_a_check_fail_otherwise(text: str) -> None:
    checks: tuple[Callable[[str], Any], ...] = (
        values.host,
        values.path,
        values.whole(0, 9),
        values.seconds(0),
        values.rate,
        values.byte_rate,
        values.network,
        values.alias,
    )
    for parse in checks:
        with suppress(ValueError):
            parse(text)


def test_a_path_is_made_absolute_and_a_tilde_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/farm")
    assert values.path("jobs") == tmp_path / "jobs"
    assert values.path("~/jobs") == Path("/home/farm/jobs")
