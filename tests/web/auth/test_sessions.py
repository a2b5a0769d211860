"""The cookie of a session, and which token a request with it has."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import assume, example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from jobsvc.domain.access import Token
from jobsvc.domain.errors import BadRequest, CrossOriginRequest, Unauthorized
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.token_file import create, revoke, rotate
from jobsvc.web.auth.bearer import NoCredentials, TokenAuthenticator
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.auth.sessions import MAX_AGE_S, MAX_COOKIES_LENGTH, Sessions, sign_session, verify_session
from jobsvc.web.auth.signed_links import query
from jobsvc.web.auth.signing_key import SigningKey

KEY: Final = bytes(range(32))
NOW: Final = 1_800_000_000.0
HOST: Final = "jobs.example"
OWN: Final = f"http://{HOST}"
PROXY: Final = "127.0.0.1"
STRANGER: Final = "192.0.2.1"
PLAIN, SECURE = "jobsvc", "__Host-jobsvc"

keys = st.binary(min_size=32, max_size=32)
token_ids = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
expiries = st.integers(1, 10**16 - 1)


def test_value_is_the_token_id_the_expiry_and_the_documented_signature() -> None:
    signed = b"16:jobsvc session 1,2:id,10:1800000000,"
    expected = urlsafe_b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode().removesuffix("=")
    assert sign_session(KEY, "id", 1_800_000_000) == f"id:1800000000:{expected}"


@given(keys, token_ids, expiries)
def test_unmodified_value_is_valid_and_needs_no_quotes_in_a_cookie(
    key: bytes, token_id: str, expires: int
) -> None:
    value = sign_session(key, token_id, expires)
    assert verify_session(key, value, 0) == (token_id, expires)
    assert re.fullmatch(r"[A-Za-z0-9._:-]+", value)


@given(token_ids, expiries, st.data())
def test_value_with_any_bit_flipped_is_invalid(token_id: str, expires: int, data: st.DataObject) -> None:
    value = bytearray(sign_session(KEY, token_id, expires).encode())
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert verify_session(KEY, value.decode("utf-8", "surrogateescape"), 0) is None


def test_every_bit_of_a_value_is_significant() -> None:
    value = sign_session(KEY, "0123456789ab", 1_800_000_000).encode()
    for index in range(len(value)):
        for bit in range(8):
            flipped = value[:index] + bytes([value[index] ^ (1 << bit)]) + value[index + 1 :]
            assert verify_session(KEY, flipped.decode("utf-8", "surrogateescape"), 0) is None


@given(keys, token_ids, expiries, keys, token_ids, expiries)
def test_signature_is_bound_to_key_token_and_expiry(
    key: bytes, token_id: str, expires: int, key_: bytes, token_id_: str, expires_: int
) -> None:
    signature = sign_session(key, token_id, expires).rpartition(":")[2]
    for other in ((key_, token_id, expires), (key, token_id_, expires), (key, token_id, expires_)):
        assume(other != (key, token_id, expires))
        assert verify_session(other[0], f"{other[1]}:{other[2]}:{signature}", 0) is None


@given(token_ids, st.integers(1, 10**10), st.floats(-2, 2))
def test_value_is_valid_until_the_second_of_its_expiry(token_id: str, expires: int, aside: float) -> None:
    now = expires + aside
    expected = (token_id, expires) if now < expires else None
    assert verify_session(KEY, sign_session(KEY, token_id, expires), now) == expected


@given(st.text() | st.from_regex(r"[^:]*:[^:]*:[^:]*", fullmatch=True))
@example("id:0:" + "A" * 43)
@example("id:01:" + "A" * 43)
@example("id:٣:" + "A" * 43)
@example(sign_session(KEY, "id", 10**15) + "\n")
@example(f'"{sign_session(KEY, "id", 10**15)}"')
@example(sign_session(KEY, "id", 10**15) + "=")
def test_other_text_is_not_a_session(text: str) -> None:
    assert verify_session(KEY, text, 0) is None


@given(token_ids, expiries)
def test_signature_of_a_link_is_not_that_of_a_session(token_id: str, expires: int) -> None:
    for path in ("", "/", "jobsvc session 1", f"/api/jobs/{token_id}/download"):
        link = query(KEY, path, "A" * 22, token_id, expires)
        assert verify_session(KEY, f"{token_id}:{expires}:{link.rpartition('=')[2]}", 0) is None


class Browser:
    """Sessions over a real key and a real token file, and a browser that has a cookie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.disk = StorageExecutor()
        self.tokens = TokenAuthenticator(
            folder / "tokens.json",
            self.disk,
            clock=lambda: self.now,
            on_bad_file=lambda _exc: None,
            on_bad_labels=lambda _exc: None,
        )
        self.key = SigningKey(folder / "link.key", self.disk)
        self.sessions = self.with_options()

    def with_options(self, **options: Any) -> Sessions:
        proxies = ClientAddresses([ip_network(PROXY)])
        return Sessions(self.key, self.tokens, proxies, clock=lambda: self.now, **options)

    async def token(self, expires: float | None = None) -> tuple[str, Token]:
        made = create(self.folder / "tokens.json", "anna", expires=expires)
        await self.tokens.file.refresh()
        return made

    async def change(self, function: Any, *arguments: Any) -> Any:
        """Call a function of token_file and have the result applied."""
        result = function(self.folder / "tokens.json", *arguments)
        await self.tokens.file.refresh()
        return result

    def value(self, token: Token, seconds: int = 60) -> str:
        return sign_session(self.key.value, token.id, int(self.now) + seconds)

    def started(self, token: Token, sessions: Sessions | None = None, **fields: str) -> tuple[str, Any]:
        """Start a session; return the name of the cookie and the cookie."""
        response = web.Response()
        (sessions or self.sessions).start(asked("POST", **fields), response, token)
        ((name, cookie),) = response.cookies.items()
        return name, cookie

    def comes(
        self, cookie: str, method: str = "GET", sessions: Sessions | None = None, /, **fields: str
    ) -> Token:
        """Send a request with a Cookie field; underscores in `fields` stand for hyphens."""
        return (sessions or self.sessions).authenticate(asked(method, Cookie=cookie, **fields))


def asked(method: str = "GET", peer: str = PROXY, **fields: str) -> web.Request:
    return asked_with({name.replace("_", "-"): value for name, value in fields.items()}, method, peer)


def asked_with(
    fields: Mapping[str, str] | CIMultiDict[str], method: str = "GET", peer: str = PROXY
) -> web.Request:
    headers = CIMultiDict(fields)
    headers.setdefault("Host", HOST)
    return make_mocked_request(method, "/api/jobs", headers=headers).clone(remote=peer)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    made = Browser(tmp_path / "state")
    async with asynccontextmanager(made.key.cleanup_ctx)(web.Application()):
        yield made
    made.disk.close_later(made.tokens.file._reserve)
    made.disk.close()


async def test_session_is_the_token_that_started_it_for_seven_days(browser: Browser) -> None:
    _, token = await browser.token()
    name, cookie = browser.started(token)
    assert (name, cookie["max-age"]) == ("jobsvc", str(MAX_AGE_S)) == ("jobsvc", "604800")
    browser.now += MAX_AGE_S - 1
    assert browser.comes(f"jobsvc={cookie.value}") == token
    browser.now += 1
    with pytest.raises(NoCredentials, match="The session is invalid or has expired"):
        browser.comes(f"jobsvc={cookie.value}")


async def test_session_ends_with_its_token(browser: Browser) -> None:
    _, token = await browser.token(expires=NOW + 30)
    _, cookie = browser.started(token)
    assert cookie["max-age"] == "30"
    assert cookie.value.split(":")[1] == str(int(NOW + 30))
    browser.now += 29.9
    assert browser.comes(f"jobsvc={cookie.value}") == token
    browser.now += 0.1
    with pytest.raises(NoCredentials):
        browser.comes(f"jobsvc={cookie.value}")


async def test_session_of_a_revoked_rotated_or_removed_token_is_refused(browser: Browser) -> None:
    _, revoked = await browser.token()
    _, rotated = await browser.token()
    _, removed = await browser.token()
    await browser.change(revoke, revoked.id)
    await browser.change(rotate, rotated.id, None, 0)
    for token, reason in ((revoked, "revoked"), (rotated, "revoked")):
        with pytest.raises(NoCredentials, match="expired or revoked") as refused:
            browser.comes(f"jobsvc={browser.value(token)}")
        assert (refused.value.reason, refused.value.token_id) == (reason, token.id)
    assert browser.comes(f"jobsvc={browser.value(removed)}") == removed
    (browser.folder / "tokens.json").unlink()
    await browser.tokens.file.refresh()
    with pytest.raises(NoCredentials) as refused:
        browser.comes(f"jobsvc={browser.value(removed)}")
    assert refused.value.reason == "unknown"


async def test_use_of_a_session_is_a_use_of_its_token(browser: Browser) -> None:
    _, token = await browser.token()
    browser.comes(f"jobsvc={browser.value(token)}")
    assert browser.tokens.used == {token.id: NOW}


async def test_no_session_is_valid_before_the_key_is_loaded(browser: Browser) -> None:
    _, token = await browser.token()
    key = SigningKey(browser.folder / "link.key", browser.disk)
    early = Sessions(key, browser.tokens, ClientAddresses(()), clock=lambda: browser.now)
    for known in (browser.key.value, b"", bytes(32)):
        with pytest.raises(NoCredentials):
            early.authenticate(asked(Cookie=f"jobsvc={sign_session(known, token.id, int(NOW) + 60)}"))


async def test_authorization_field_takes_precedence_over_a_cookie(browser: Browser) -> None:
    (secret, token), (_, other) = await browser.token(), await browser.token()
    cookie = f"jobsvc={browser.value(other)}"
    assert browser.comes(cookie, Authorization=f"Bearer {secret}") == token
    for wrong in ("Bearer wrong", "", "Basic YTpi"):
        with pytest.raises(Unauthorized) as refused:
            browser.comes(cookie, Authorization=wrong)
        assert type(refused.value) is Unauthorized  # counted as a wrong token


async def test_token_by_field_is_accepted_from_any_origin(browser: Browser) -> None:
    secret, token = await browser.token()
    fields = {
        "Authorization": f"Bearer {secret}",
        "Sec_Fetch_Site": "cross-site",
        "Origin": "https://evil.example",
    }
    assert browser.comes("jobsvc=junk", "POST", **fields) == token


VALUE: Final = "{value}"
JUNK: Final = (
    "",
    ";",
    "=",
    "jobsvc",
    "jobsvc=",
    "jobsvc=;jobsvc",
    "jobsvc=::",
    'jobsvc="{value}"',
    "jobsvc={value} ",
    "jobsvc ={value}",
    " = jobsvc={value}",
    "JOBSVC={value}",
    "__Host-jobsvc={value}",
    "__host-jobsvc={value}",
    "xjobsvc={value}",
    "jobsvc={value}x",
    "jobsvc={value}\x01",
    "jobsvc={value}; jobsvc={value}",
    "jobsvc={value};jobsvc=other",
    "jobsvc=other; jobsvc={value}",
    "a=b,jobsvc={value}",
    "\x0bjobsvc={value}",
    "\xa0jobsvc={value}",
    "jobsvc=%69d:1:" + "A" * 43,
    "jobsvc=ïd:1:" + "A" * 43,
    "jobsvc=id:9" + "9" * 20 + ":" + "A" * 43,
    "jobsvc={value}; a=" + "b" * MAX_COOKIES_LENGTH,
)


@pytest.mark.parametrize("cookie", JUNK, ids=lambda text: text[:30])
async def test_other_cookies_are_no_session(browser: Browser, cookie: str) -> None:
    _, token = await browser.token()
    accepted = {"jobsvc={value} "}
    text = cookie.replace(VALUE, browser.value(token))
    if cookie in accepted:
        assert browser.comes(text) == token
        return
    with pytest.raises(NoCredentials):
        browser.comes(text)
    assert browser.tokens.used == {}


@given(st.text())
def test_any_text_as_a_cookie_is_refused_without_an_error(text: str) -> None:
    sessions = Sessions(_Key(), _NoTokens(), ClientAddresses(()))  # type: ignore[arg-type]  # only their two uses
    for cookie in (text, f"jobsvc={text}", f"jobsvc={text};", f"{text};jobsvc=x"):
        with pytest.raises(NoCredentials):
            sessions.authenticate(asked_with({"Cookie": cookie}))


class _Key:
    value = KEY


class _NoTokens:
    def authenticate(self, _headers: object) -> Token:
        raise NoCredentials("None.", "missing")


async def test_cookies_of_others_beside_that_of_the_session_are_ignored(browser: Browser) -> None:
    _, token = await browser.token()
    value = browser.value(token)
    for cookie in (
        f"a=b; jobsvc={value}; c",
        f"jobsvc={value};",
        f"\tjobsvc={value}",
        f"jobsvc2=x;jobsvc={value}",
    ):
        assert browser.comes(cookie) == token


async def test_session_in_two_cookie_fields_is_refused_as_one_that_is_sent_twice(browser: Browser) -> None:
    _, token = await browser.token()
    twice = CIMultiDict([("Cookie", f"jobsvc={browser.value(token)}")] * 2)
    with pytest.raises(NoCredentials):
        browser.sessions.authenticate(asked_with(twice))
    split = CIMultiDict([("Cookie", "a=b"), ("Cookie", f"jobsvc={browser.value(token)}")])
    assert browser.sessions.authenticate(asked_with(split)) == token


async def test_secure_cookie_is_the_only_one_that_counts_over_https(browser: Browser) -> None:
    (_, token), (_, other) = await browser.token(), await browser.token()
    secure, plain = f"__Host-jobsvc={browser.value(token)}", f"jobsvc={browser.value(other)}"
    for cookie in (f"{secure}; {plain}", f"{plain}; {secure}"):
        assert browser.comes(cookie, X_Forwarded_Proto="https") == token
        assert browser.comes(cookie) == other
    with pytest.raises(NoCredentials):
        browser.comes(plain, X_Forwarded_Proto="https")


@pytest.mark.parametrize(
    ("forwarded", "peer", "public_url", "name"),
    [
        ("https", PROXY, "", SECURE),
        ("HTTPS", PROXY, "", SECURE),
        ("http, https", PROXY, "", SECURE),
        ("https, http", PROXY, "", PLAIN),
        ("http", PROXY, "", PLAIN),
        ("https", STRANGER, "", PLAIN),
        ("httpsx", PROXY, "", PLAIN),
        ("", PROXY, "https://jobs.example/farm", SECURE),
        ("", STRANGER, "https://jobs.example", SECURE),
        ("http", PROXY, "https://jobs.example", SECURE),
        ("", PROXY, "http://jobs.example", PLAIN),
        ("https", PROXY, "http://jobs.example", SECURE),
    ],
)
async def test_cookie_is_secure_if_the_browser_uses_https(
    browser: Browser, forwarded: str, peer: str, public_url: str, name: str
) -> None:
    _, token = await browser.token()
    sessions = browser.with_options(public_url=public_url)
    started, cookie = browser.started(token, sessions, peer=peer, X_Forwarded_Proto=forwarded)
    assert started == name
    assert bool(cookie["secure"]) == (name == SECURE)
    assert (cookie["path"], cookie["httponly"], cookie["samesite"], cookie["domain"]) == (
        "/",
        True,
        "Strict",
        "",
    )


HTTPS: Final = "https://render.example/farm"


@pytest.mark.parametrize(
    ("fields", "peer", "public_url", "named"),
    [
        ({"Origin": OWN}, STRANGER, HTTPS, f"{HTTPS}/"),
        ({"Origin": OWN}, PROXY, f"{HTTPS}/", f"{HTTPS}/"),
        ({"Origin": OWN, "X_Forwarded_Proto": "http"}, PROXY, HTTPS, f"{HTTPS}/"),
        ({"Origin": OWN, "X_Forwarded_Proto": "https"}, PROXY, "", f"https://{HOST}/"),
        (
            {"Origin": OWN, "X_Forwarded_Proto": "https", "X_Forwarded_Host": "farm.example"},
            PROXY,
            "http://a.example",
            "https://farm.example/",
        ),
        ({"Origin": f"https://{HOST}"}, STRANGER, HTTPS, None),  # behind a proxy that is not trusted
        ({"Origin": f"https://{HOST}", "X_Forwarded_Proto": "https"}, PROXY, "", None),
        ({"Origin": OWN, "Sec_Fetch_Site": "same-origin"}, STRANGER, HTTPS, None),  # the same machine
        ({"Sec_Fetch_Site": "same-origin"}, STRANGER, HTTPS, None),
        ({"Origin": OWN}, STRANGER, "", None),
        ({"Origin": OWN}, PROXY, "http://a.example", None),
        ({"Origin": OWN, "X_Forwarded_Proto": "https"}, STRANGER, "", None),
    ],
)
async def test_sign_in_is_refused_if_the_browser_would_not_keep_the_cookie(
    browser: Browser, fields: dict[str, str], peer: str, public_url: str, named: str | None
) -> None:
    _, token = await browser.token()
    sessions = browser.with_options(public_url=public_url)
    if named is None:
        assert browser.started(token, sessions, peer=peer, **fields)
        return
    with pytest.raises(BadRequest, match=f"Open {re.escape(named)} instead"):
        browser.started(token, sessions, peer=peer, **fields)


async def test_cookies_are_ignored_if_sessions_are_not_enabled(browser: Browser) -> None:
    secret, token = await browser.token()
    disabled = browser.with_options(enabled=False)
    with pytest.raises(NoCredentials, match="no bearer token"):
        browser.comes(f"jobsvc={browser.value(token)}", "GET", disabled)
    assert browser.comes("jobsvc=x", "GET", disabled, Authorization=f"Bearer {secret}") == token


SITES: Final = (
    "same-origin",
    "same-site",
    "cross-site",
    "none",
    "",
    "Same-Origin",
    "same-origin, same-origin",
)
ORIGINS: Final = (
    OWN,
    f"https://{HOST}",
    f"{OWN}:8080",
    f"http://x.{HOST}",
    "https://evil.example",
    "null",
    "",
    "http://[",
)
READING: Final = frozenset({"GET", "HEAD"})


def is_allowed(method: str, site: str | None, origin: str | None) -> bool:
    """Return what is documented."""
    if site is not None:
        return site == "same-origin" or (site == "none" and method in READING)
    if origin is not None:
        return origin in {OWN, f"https://{HOST}"}
    return method in READING


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("site", [None, *SITES])
@pytest.mark.parametrize("origin", [None, *ORIGINS])
async def test_session_is_only_accepted_from_the_page_itself(
    browser: Browser, method: str, site: str | None, origin: str | None
) -> None:
    secret, token = await browser.token()
    fields = {"Sec_Fetch_Site": site, "Origin": origin}
    given_fields = {name: value for name, value in fields.items() if value is not None}
    attempts: tuple[Callable[[], Token], ...] = (
        lambda: browser.comes(f"jobsvc={browser.value(token)}", method, **given_fields),
        lambda: browser.sessions.authenticate_token(
            asked(method, Authorization=f"Bearer {secret}", **given_fields)
        ),
    )
    for attempt in attempts:
        if is_allowed(method, site, origin):
            assert attempt() == token
        else:
            with pytest.raises(CrossOriginRequest):
                attempt()


@pytest.mark.parametrize("origin", ["https://render.example", "https://farm.example:8443", OWN])
async def test_origin_may_be_that_of_the_proxy_or_of_the_public_url(browser: Browser, origin: str) -> None:
    _, token = await browser.token()
    sessions = browser.with_options(public_url="https://Render.Example/farm")
    cookie = f"__Host-jobsvc={browser.value(token)}"
    fields = {"Origin": origin, "X_Forwarded_Host": "farm.example:8443"}
    assert browser.comes(cookie, "POST", sessions, **fields) == token
    with pytest.raises(CrossOriginRequest):
        browser.comes(
            cookie, "POST", sessions, peer=STRANGER, **fields | {"Origin": "https://farm.example:8443"}
        )


async def test_request_without_host_and_origin_is_not_of_the_same_origin(browser: Browser) -> None:
    _, token = await browser.token()
    for fields in ({}, {"Origin": ""}, {"Origin": "null"}):
        with pytest.raises(CrossOriginRequest):
            browser.comes(f"jobsvc={browser.value(token)}", "POST", Host="", **fields)


async def test_request_of_another_origin_is_refused_whether_its_session_is_valid_or_not(
    browser: Browser,
) -> None:
    _, token = await browser.token()
    for cookie in (f"jobsvc={browser.value(token)}", "jobsvc=junk"):
        with pytest.raises(CrossOriginRequest):
            browser.comes(cookie, Sec_Fetch_Site="cross-site")
    with pytest.raises(NoCredentials):  # without a session, the origin does not matter
        browser.comes("a=b", Sec_Fetch_Site="cross-site")


async def test_sign_out_removes_the_cookie_that_the_browser_has(browser: Browser) -> None:
    for proto, name in (("http", "jobsvc"), ("https", "__Host-jobsvc")):
        response = web.Response()
        browser.sessions.end(asked("DELETE", Sec_Fetch_Site="same-origin", X_Forwarded_Proto=proto), response)
        ((removed, cookie),) = response.cookies.items()
        assert (removed, cookie.value, cookie["max-age"], cookie["path"]) == (name, "", "0", "/")
        assert bool(cookie["secure"]) == (proto == "https")
    with pytest.raises(CrossOriginRequest):
        browser.sessions.end(asked("DELETE", Sec_Fetch_Site="same-site"), web.Response())


async def test_refusal_quotes_no_part_of_the_cookie(browser: Browser) -> None:
    _, token = await browser.token()
    value = browser.value(token)
    with pytest.raises(NoCredentials) as refused:
        browser.comes(f"jobsvc=x{value}")
    assert (
        value.rpartition(":")[2]
        not in f"{refused.value!r} {refused.value.detail} {refused.value.__cause__!r}"
    )
