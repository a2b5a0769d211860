from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobsvc.observe.redaction import REDACTED, redact, redact_mapping, redact_text

SECRET = "Zk3-9_xQvW8bTn2LrYc7HdMf5GsJpA1uEoI4RtBv6Kw"  # noqa: S105 - nobody's
URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"token jsvc_{SECRET}.", f"token jsvc_{REDACTED}."),
        (f"JSVC_{SECRET}", f"jsvc_{REDACTED}"),
        (f"Authorization: Bearer {SECRET}\r\nHost: x", f"Authorization: {REDACTED}\r\nHost: x"),
        ("authorization=Basic dXNlcjpwYXNz", f"authorization={REDACTED}"),
        (
            f"<CIMultiDict('Authorization': 'Bearer {SECRET}')>",
            f"<CIMultiDict('Authorization': '{REDACTED}')>",
        ),
        (f"(b'Authorization', b'Basic {SECRET}')", f"(b'Authorization', b'{REDACTED}')"),
        (f'{{"authorization": "Basic {SECRET}"}}', f'{{"authorization": "{REDACTED}"}}'),
        (f"bearer  {SECRET}", f"bearer  {REDACTED}"),
        (
            f"GET /api/jobs/a/download?sig={SECRET} HTTP/1.1",
            f"GET /api/jobs/a/download?sig={REDACTED} HTTP/1.1",
        ),
        (f"/d?t=1&sig={SECRET}&e=2", f"/d?t=1&sig={REDACTED}&e=2"),
        (f"/d?t=1&signature={SECRET}&e=2", f"/d?t=1&signature={REDACTED}&e=2"),
        (f"Cookie: a=b; jobsvc={SECRET}\r\nHost: x", f"Cookie: {REDACTED}\r\nHost: x"),
        (f"('Set-Cookie', 'jobsvc={SECRET}; Path=/')", f"('Set-Cookie', '{REDACTED}')"),
        (f"jobsvc=a1b2:1800000000:{SECRET}; b=c", f"jobsvc=a1b2:1800000000:{REDACTED}; b=c"),
        (f"/ui?a1b2%3a1800000000%3A{SECRET}", f"/ui?a1b2%3a1800000000%3A{REDACTED}"),
        (f"next=%2Fd%3Fsig%3D{SECRET}", f"next=%2Fd%3Fsig%3D{REDACTED}"),
    ],
)
def test_secret_is_removed_and_the_rest_kept(text: str, expected: str) -> None:
    assert redact_text(text) == expected
    assert redact_text(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "GET /api/jobs/a 200",
        "one cookie is set",
        "at 09:12:30",
        "127.0.0.1:8080: refused",
        "WWW-Authenticate: Bearer",
        "design=flat",
        "the token a1b2 was revoked",
        "",
    ],
)
def test_other_text_is_kept(text: str) -> None:
    assert redact_text(text) == text


def holding(secret: str) -> st.SearchStrategy[object]:
    """Values of any shape that contain the secret."""
    around = st.text(max_size=8)
    leaf = st.one_of(
        st.builds(lambda a, b: f"{a}{secret} {b}", around, around),
        st.just(ValueError(f"bad token {secret}")),
        st.just(secret.encode()),
    )
    return st.recursive(
        leaf,
        lambda of: st.one_of(
            st.lists(of, min_size=1, max_size=2),
            st.tuples(st.integers(), of),
            st.dictionaries(around, of, min_size=1, max_size=2),
            of.map(lambda inner: {str(inner): 1}),
        ),
        max_leaves=12,
    )


@given(st.data(), st.text(URL_SAFE, min_size=43, max_size=43))
def test_every_token_is_removed_from_any_value(data: st.DataObject, secret: str) -> None:
    value = data.draw(holding(f"jsvc_{secret}"))
    assert secret not in repr(redact(value))
    assert secret not in repr(redact_mapping({"key": value, "kéy": 1}))


@given(st.text(), st.text(URL_SAFE, min_size=20, max_size=20))
def test_every_signature_is_removed_before_any_text(text: str, secret: str) -> None:
    assume(secret not in text)
    for before in (
        "Cookie: ",
        "Set-Cookie: jobsvc=",
        "?sig=",
        "&sig=",
        "&signature=",
        "Authorization: Basic ",
        "Bearer ",
    ):
        assert secret not in redact_text(f"{text}{before}{secret} {text}")


def test_value_of_a_secret_key_is_removed_completely() -> None:
    given_: dict[str, Any] = {"Authorization": ["x"], "sig": 1, "deep": {"Cookie": "a=b"}, "n": 1.5}
    assert redact(given_) == {
        "Authorization": REDACTED,
        "sig": REDACTED,
        "deep": {"Cookie": REDACTED},
        "n": 1.5,
    }


def test_endless_nesting_is_cut_off_without_a_secret() -> None:
    value: object = f"jsvc_{SECRET}"
    for _ in range(100):
        value = [value]
    assert SECRET not in repr(redact(value))
