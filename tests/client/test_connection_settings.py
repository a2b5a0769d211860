from __future__ import annotations

import pytest

from jobsvc.client.connection_settings import normalize_token, normalize_url
from jobsvc.client.errors import BadConfiguration


@pytest.mark.parametrize(
    ("url", "normalized"),
    [
        ("https://render.example.com", "https://render.example.com"),
        (" https://render.example.com/ \n", "https://render.example.com"),
        ("https://render.example.com/api", "https://render.example.com"),
        ("https://render.example.com/farm/api/", "https://render.example.com/farm"),
        ("https://render.example.com/farm//", "https://render.example.com/farm"),
        ("https://render.example.com/my-api", "https://render.example.com/my-api"),
        ("HTTP://Render.Example.COM:8080/Farm", "http://render.example.com:8080/Farm"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_url_is_normalized(url: str, normalized: str) -> None:
    assert normalize_url(url) == normalized


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "no http:// or https:// at its start"),
        ("render.example.com", "no http:// or https:// at its start"),
        ("localhost:8080", "no http:// or https:// at its start"),
        ("//render.example.com", "no http:// or https:// at its start"),
        ("ftp://render.example.com", "does not start with http:// or https://"),
        ("https://", "invalid host or port"),
        ("https:///api", "invalid host or port"),
        ("https://render.example.com:port", "invalid host or port"),
        ("https://render.example.com:0", "invalid host or port"),
        ("https://render.example.com:65536", "invalid host or port"),
        ("https://[::1", "invalid host or port"),
        ("https://.example.com", "invalid host or port"),
        ("https://ex%41mple.com", "invalid host or port"),
        (f"https://{'x' * 64}\u00fc.example", "invalid host or port"),
        ("https://render.example.com?token=1", "contains a query or a fragment"),
        ("https://render.example.com/?", "contains a query or a fragment"),
        ("https://render.example.com/#", "contains a query or a fragment"),
        ("https://render.example .com", "contains a space or a control character"),
        ("https://render.example.com/\r\nX: 1", "contains a space or a control character"),
        ("https://render\x00.example.com", "contains a space or a control character"),
        ("https://render.example.com/b\u00fccher", "must be percent-encoded"),
    ],
)
def test_invalid_url_is_named_with_a_valid_one(url: str, problem: str) -> None:
    with pytest.raises(BadConfiguration) as raised:
        normalize_url(url)
    message = str(raised.value)
    assert problem in message
    assert repr(url)[:10] in message
    assert "A valid URL is https://render.example.com." in message


@pytest.mark.parametrize(
    "url",
    ["https://anna:secret@example.com", "https://anna@secret@example.com", "https://secret@example.com:port",
     "anna:secret@example.com", "https://example.com/?token=secret", "https://example.com/#secret"],
)  # fmt: skip
def test_secrets_in_a_url_are_not_shown(url: str) -> None:
    with pytest.raises(BadConfiguration) as raised:
        normalize_url(url)
    assert "secret" not in str(raised.value)


def test_token_is_stripped() -> None:
    assert normalize_token(" abc~!-_.\r\n", "the test") == "abc~!-_."


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "a\x00b", "\u00e4", "a\x7f"])
def test_invalid_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(BadConfiguration, match="The token from the test") as raised:
        normalize_token(token, "the test")
    assert not token.strip() or token not in str(raised.value)
