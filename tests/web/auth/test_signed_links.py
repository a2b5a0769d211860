from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jobsvc.domain.access import Token
from jobsvc.domain.errors import Unauthorized
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.link_key import BadLinkKey
from jobsvc.storage.state.token_file import create, revoke
from jobsvc.web.auth.bearer import NoCredentials, TokenAuthenticator
from jobsvc.web.auth.client_address import ClientAddresses
from jobsvc.web.auth.sessions import Sessions
from jobsvc.web.auth.signed_links import SignedLinks, query, sign_link, verify
from jobsvc.web.auth.signing_key import SigningKey

PATH = "/api/jobs/job/download/film.mp4"
VERSION = "kJ0d3uKXbP9vT2mQxW5s1A"

KEY = bytes(range(32))
ALIKE = "The link is invalid, expired or revoked."
NOW = 1_800_000_000.0

job_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)
token_ids = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
keys = st.binary(min_size=32, max_size=32)
expiries = st.integers(1, 10**16 - 1)


def good(key: bytes, job_id: str, text: str, now: float = 0) -> bool:
    try:
        verify(key, job_id, text, now)
    except Unauthorized as refused:
        if (type(refused), refused.detail) != (Unauthorized, ALIKE):
            raise
        return False
    return True


def test_signature_is_hmac_sha256_of_the_documented_message() -> None:
    signed = f"22:jobsvc download link 2,31:{PATH},22:{VERSION},2:id,13:1800000000000,".encode()
    expected = urlsafe_b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode().removesuffix("=")
    assert sign_link(KEY, PATH, VERSION, "id", 1_800_000_000_000) == expected
    text = query(KEY, PATH, VERSION, "id", 1_800_000_000_000)
    assert text == f"version={VERSION}&token=id&expires=1800000000000&signature={expected}"


@given(keys, job_ids, token_ids, expiries)
def test_unmodified_link_is_valid_and_names_its_token(
    key: bytes, job_id: str, token_id: str, expires: int
) -> None:
    text = query(key, job_id, VERSION, token_id, expires)
    assert verify(key, job_id, text, 0) == token_id
    assert re.fullmatch(r"[A-Za-z0-9._=&-]+", text)


@given(job_ids, token_ids, expiries, st.data())
def test_link_with_any_bit_flipped_is_invalid(
    job_id: str, token_id: str, expires: int, data: st.DataObject
) -> None:
    text = query(KEY, job_id, VERSION, token_id, expires).encode()
    index, bit = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(text)
    flipped[index] ^= 1 << bit
    assert not good(KEY, job_id, flipped.decode("utf-8", "surrogateescape"))


@given(st.integers(0, 7), expiries)
def test_every_bit_of_a_link_is_significant(bit: int, expires: int) -> None:
    text = query(KEY, "job", VERSION, "0123456789ab", expires).encode()
    for index in range(len(text)):
        flipped = text[:index] + bytes([text[index] ^ (1 << bit)]) + text[index + 1 :]
        assert not good(KEY, "job", flipped.decode("utf-8", "surrogateescape"))


versions = st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True)


@given(keys, job_ids, versions, token_ids, expiries, keys, st.text() | job_ids, versions, token_ids, expiries)
def test_signature_is_bound_to_key_path_version_token_and_expiry(
    key: bytes,
    path: str,
    version: str,
    token: str,
    expires: int,
    key_: bytes,
    path_: str,
    version_: str,
    token_: str,
    expires_: int,
) -> None:
    signature = sign_link(key, path, version, token, expires)
    for other in (
        (key_, path, version, token, expires),
        (key, path_, version, token, expires),
        (key, path, version_, token, expires),
        (key, path, version, token_, expires),
        (key, path, version, token, expires_),
    ):
        assume(other != (key, path, version, token, expires))
        assert sign_link(*other) != signature
        text = f"version={other[2]}&token={other[3]}&expires={other[4]}&signature={signature}"
        assert not good(other[0], other[1], text)


@given(st.text(max_size=12), st.text(max_size=12), st.integers(0, 12), st.integers(0, 99))
@example("a1:b", "c", 1, 1)
def test_signed_messages_of_different_links_differ(job: str, token: str, cut: int, expires: int) -> None:
    both = job + token
    assume(both[:cut] != job)
    assert sign_link(KEY, both[:cut], both[cut:], "", expires) != sign_link(KEY, job, token, "", expires)
    assert sign_link(KEY, "", both[:cut], both[cut:], expires) != sign_link(KEY, "", job, token, expires)
    assert sign_link(KEY, job, "", f"{token}1", expires) != sign_link(KEY, job, "", token, int(f"1{expires}"))


@given(st.integers(1, 10**13), st.floats(-2, 2))
def test_link_is_valid_until_the_millisecond_of_its_expiry(expires: int, aside: float) -> None:
    now = expires / 1000 + aside
    assert good(KEY, "job", query(KEY, "job", VERSION, "id", expires), now) == (now * 1000 < expires)
    assert not good(KEY, "job", query(KEY, "job", VERSION, "id", expires), expires / 1000 + 0.001)


@given(st.text() | st.from_regex(r"version=[^&]*&token=[^&]*&expires=[^&]*&signature=[^&]*", fullmatch=True))
@example(f"version={VERSION}&token=a&expires=0&signature=" + "A" * 43)
@example(f"version={VERSION}&token=a&expires=01&signature=" + "A" * 43)
@example(f"version={VERSION}&token=a&expires=٣&signature=" + "A" * 43)
@example(query(KEY, "job", VERSION, "id", 1) + "\n")
def test_other_text_is_not_a_link(text: str) -> None:
    assert not good(KEY, "job", text)


@given(st.text())
def test_any_text_as_job_id_is_rejected_without_an_error(job_id: str) -> None:
    assume(job_id != "job")
    text = query(KEY, "job", VERSION, "id", 10**15)
    assert not good(KEY, job_id, text)
    assert not good(KEY, f"job\0{job_id}\udcff", text)


class LinkService:
    """Signed links over a real key and a real token file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.disk = StorageExecutor()
        self.gate = TokenAuthenticator(
            folder / "tokens.json",
            self.disk,
            clock=lambda: self.now,
            on_bad_file=lambda _exc: None,
            on_bad_labels=lambda _exc: None,
        )
        self.key = self.another_key()
        self.links = self.links_with(self.key)

    def another_key(self) -> SigningKey:
        return SigningKey(self.folder / "link.key", self.disk)

    def links_with(self, key: SigningKey, revoked: Container[str] = ()) -> SignedLinks:
        sessions = Sessions(key, self.gate, ClientAddresses(()), clock=lambda: self.now)
        return SignedLinks(key, sessions, self.gate, revoked=revoked, clock=lambda: self.now)

    def url(self, token: Token, seconds: int = 60) -> str:
        return self.links.create(PATH, VERSION, token, seconds).target

    async def token(self, expires: float | None = None) -> tuple[str, Token]:
        made = create(self.folder / "tokens.json", "anna", expires=expires)
        await self.gate.file.refresh()
        return made

    def comes(self, url: str, secret: str | None = None, links: SignedLinks | None = None) -> Token:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        request = make_mocked_request("GET", url, headers=headers)
        return (links or self.links).authenticate(request)


@asynccontextmanager
async def loaded(key: SigningKey) -> AsyncIterator[None]:
    async with asynccontextmanager(key.cleanup_ctx)(web.Application()):
        yield


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[LinkService]:
    made = LinkService(tmp_path / "state")
    async with loaded(made.key):
        yield made
    made.disk.close()


async def test_link_authenticates_as_the_token_that_created_it(service: LinkService) -> None:
    _, token = await service.token()
    link = service.links.create(PATH, VERSION, token, 60)
    assert link.target.startswith(
        f"{PATH}?version={VERSION}&token={token.id}&expires={link.expires}&signature="
    )
    assert link.expires == (NOW + 60) * 1000
    assert service.comes(link.target) == token
    assert service.comes(f"http://jobs.example{link.target}") == token


async def test_link_expires_with_its_time_and_with_its_token(service: LinkService) -> None:
    _, token = await service.token()
    url = service.url(token)
    service.now = NOW + 60
    with pytest.raises(Unauthorized, match=ALIKE):
        service.comes(url)
    service.now = NOW + 59
    assert service.comes(url) == token
    revoke(service.folder / "tokens.json", token.id)
    await service.gate.file.refresh()
    with pytest.raises(Unauthorized, match=ALIKE):
        service.comes(url)


async def test_link_never_outlives_its_token(service: LinkService) -> None:
    _, token = await service.token(expires=NOW + 30)
    assert service.links.create(PATH, VERSION, token, 60).expires == (NOW + 30) * 1000
    assert service.links.create(PATH, VERSION, token, 20).expires == (NOW + 20) * 1000
    url = service.url(token)
    service.now = NOW + 30
    with pytest.raises(Unauthorized, match=ALIKE):
        service.comes(url)


async def test_link_of_an_unknown_token_is_invalid(service: LinkService) -> None:
    _, token = await service.token()
    url = service.url(token)
    (service.folder / "tokens.json").unlink()
    await service.gate.file.refresh()
    with pytest.raises(Unauthorized, match=ALIKE) as refused:
        service.comes(url)
    assert type(refused.value) is Unauthorized


async def test_authorization_header_takes_precedence_over_a_link(service: LinkService) -> None:
    (secret, token), (_, other) = await service.token(), await service.token()
    url = service.url(other)
    assert service.comes(url, secret) == token
    assert service.comes(f"{url}x", secret) == token
    with pytest.raises(Unauthorized, match="The token is unknown, expired or revoked"):
        service.comes(url, "wrong")


async def test_request_without_credentials_is_not_a_guess_and_any_link_query_is(service: LinkService) -> None:
    for url in ("/api/jobs/job/download", "/api/jobs/job/download?"):
        with pytest.raises(NoCredentials):
            service.comes(url)
    with pytest.raises(Unauthorized) as refused:
        service.comes("/api/jobs/job/download?x")
    assert type(refused.value) is Unauthorized


async def test_inline_is_part_of_the_signature(service: LinkService) -> None:
    _, token = await service.token()
    shown = service.links.create(PATH, VERSION, token, 60, inline=True).target
    saved = service.url(token)
    assert "&inline=1&signature=" in shown
    assert service.comes(shown) == service.comes(saved) == token
    for forged in (shown.replace("&inline=1", ""), saved.replace("&signature", "&inline=1&signature")):
        with pytest.raises(Unauthorized, match=ALIKE):
            service.comes(forged)


async def test_versioned_url_without_a_token_is_not_a_guess(service: LinkService) -> None:
    with pytest.raises(NoCredentials):
        service.comes(f"/api/jobs/job/download?version={VERSION}")


@pytest.mark.parametrize(
    "spelling",
    [
        "/api/jobs/%6Aob/download/film.mp4",
        "/api/jobs/job/download/film%2Emp4",
        "/api/jobs/job/download/film.mp4/",
        "/api/jobs/job/download//film.mp4",
        "/api/jobs/./job/download/film.mp4",
        "/api/jobs/x/../job/download/film.mp4",
        "//api/jobs/job/download/film.mp4",
        "/api/jobs/job/download/FILM.mp4",
        "/api/jobs/job/download",
    ],
)
async def test_link_with_another_spelling_of_its_path_is_refused(service: LinkService, spelling: str) -> None:
    _, token = await service.token()
    url = service.url(token)
    assert service.comes(url) == token
    with pytest.raises(Unauthorized, match=ALIKE):
        service.comes(url.replace(PATH, spelling))


async def test_no_link_is_valid_before_the_key_exists(service: LinkService) -> None:
    _, token = await service.token()
    url = service.url(token)
    key = service.another_key()
    later = service.links_with(key)
    with pytest.raises(Unauthorized, match=ALIKE):
        service.comes(url, links=later)
    with pytest.raises(Unauthorized, match=ALIKE):
        service.comes(f"/x?{query(b'', 'job', VERSION, token.id, int(NOW * 2000))}", links=later)
    async with loaded(key):
        assert service.comes(url, links=later) == token


async def test_revoked_link_is_refused_as_an_expired_one_is(service: LinkService) -> None:
    _, token = await service.token()
    link, other = (service.links.create(PATH, VERSION, token, seconds, inline=False) for seconds in (60, 61))
    revoked = service.links_with(service.key, {link.id})
    assert service.comes(other.target, links=revoked) == token
    with pytest.raises(Unauthorized, match=ALIKE) as refused:
        service.comes(link.target, links=revoked)
    assert (refused.value.reason, refused.value.token_id) == ("link-revoked", token.id)
    assert refused.value.link_id == link.id


async def test_id_of_a_link_is_derived_from_its_signature_only(service: LinkService) -> None:
    _, token = await service.token()
    link = service.links.create(PATH, VERSION, token, 60)
    signature = link.target.rpartition("=")[2]
    assert link.id == hashlib.sha256(signature.encode()).hexdigest()[:16]
    service.now += 60
    with pytest.raises(Unauthorized) as refused:
        service.comes(link.target)
    assert (refused.value.reason, refused.value.link_id) == ("link-expired", link.id)
    with pytest.raises(Unauthorized) as refused:
        service.comes(link.target.replace("/job/", "/other/"))
    assert (refused.value.reason, refused.value.link_id) == ("link-signature", None)


async def test_unusable_key_prevents_the_service_from_starting(service: LinkService) -> None:
    (service.folder / "link.key").write_bytes(b"short")
    with pytest.raises(BadLinkKey):
        async with loaded(service.another_key()):
            pass


async def test_refusal_quotes_no_part_of_the_link(service: LinkService) -> None:
    _, token = await service.token()
    url = service.url(token)
    signature = url.rpartition("=")[2]
    with pytest.raises(Unauthorized) as refused:
        service.comes(url.replace("/job/", "/other/"))
    assert signature not in f"{refused.value!r} {refused.value.detail} {refused.value.__cause__!r}"
    assert refused.value.__context__ is None
