from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from jobsvc.domain.access import Token
from jobsvc.domain.errors import StorageUnavailable, Unauthorized
from jobsvc.storage.executor import StorageExecutor
from jobsvc.storage.state.token_file import BadTokenFile, create, revoke
from jobsvc.web.auth import reloaded_file
from jobsvc.web.auth.bearer import NoCredentials, TokenAuthenticator, _read_bearer

ALIKE = "The token is unknown, expired or revoked."


async def until(holds: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "not true in time"
        await asyncio.sleep(0.01)


class Service:
    """An authenticator over a real token file, and the events that it logged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disk = StorageExecutor()
        self.complaints: list[Exception] = []
        self.offset = 0.0
        self.gate = TokenAuthenticator(
            path,
            self.disk,
            clock=lambda: time.time() + self.offset,
            on_bad_file=self.complaints.append,
            on_bad_labels=self.complaints.append,
        )

    def authenticate(self, *fields: str) -> Token:
        headers = CIMultiDict([("Authorization", field) for field in fields])
        return self.gate.authenticate(make_mocked_request("GET", "/", headers=headers).headers)

    def accepts(self, secret: str) -> bool:
        try:
            self.authenticate(f"Bearer {secret}")
        except Unauthorized:
            return False
        return True

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        async with asynccontextmanager(self.gate.file.cleanup_ctx)(web.Application()):
            yield


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = Service(tmp_path / "state" / "tokens.json")
    yield made
    made.disk.close_later(made.gate.file._reserve)
    made.disk.close()


async def test_live_token_is_accepted(service: Service) -> None:
    secret, token = create(service.path, "alice")
    async with service.started():
        assert service.authenticate(f"Bearer {secret}") == token


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
@pytest.mark.parametrize("space", [" ", "   "])
async def test_scheme_is_case_insensitive_and_may_be_followed_by_spaces(
    service: Service, scheme: str, space: str
) -> None:
    secret, token = create(service.path, "alice")
    await service.gate.file.refresh()
    assert service.authenticate(f"{scheme}{space}{secret}") == token


@pytest.mark.parametrize(
    "form",
    [
        "{secret}",
        "Bearer",
        "Bearer ",
        "Bearer{secret}",
        "Bearer\t{secret}",
        "Bearer  {secret} ",
        " Bearer {secret}",
        "Bearer {secret} x",
        "Bearer {secret}, Bearer {secret}",
        "Bearer token={secret}",
        'Bearer "{secret}"',
        "Bearer {secret}=",
        "Bearer {secret}\0",
        "Bearer {secret}\n",
        "Bearer é{secret}",
        "Basic {secret}",
        "DPoP {secret}",
        "Bearer Bearer {secret}",
        "Bearer" + " " * 500 + "{secret}",
        "",
    ],
)
async def test_anything_but_exactly_a_bearer_token_is_rejected(service: Service, form: str) -> None:
    secret, _ = create(service.path, "alice")
    await service.gate.file.refresh()
    with pytest.raises(Unauthorized, match=ALIKE) as refused:
        service.authenticate(form.format(secret=secret))
    assert type(refused.value) is Unauthorized


async def test_two_authorization_fields_are_rejected_even_if_both_are_valid(service: Service) -> None:
    secret, _ = create(service.path, "alice")
    await service.gate.file.refresh()
    with pytest.raises(Unauthorized, match=ALIKE):
        service.authenticate(f"Bearer {secret}", f"Bearer {secret}")


async def test_missing_field_and_wrong_field_are_distinguished(service: Service) -> None:
    with pytest.raises(NoCredentials):
        service.authenticate()


async def test_unknown_expired_and_revoked_tokens_are_rejected_alike(service: Service) -> None:
    known, _ = create(service.path, "alice")
    expired, _ = create(service.path, "alice", expires=time.time() - 1)
    revoked, token = create(service.path, "alice")
    revoke(service.path, token.id)
    await service.gate.file.refresh()
    refusals = []
    for secret in (known[:-1] + ("A" if known[-1] != "A" else "B"), expired, revoked):
        with pytest.raises(Unauthorized) as refused:
            service.authenticate(f"Bearer {secret}")
        refusals.append((type(refused.value), str(refused.value), refused.value.retry_after))
    assert refusals == [(Unauthorized, ALIKE, None)] * 3


async def test_token_expires_on_time_without_reading_the_file(service: Service) -> None:
    secret, token = create(service.path, "alice", expires=time.time() + 3600)
    await service.gate.file.refresh()
    service.path.unlink()
    service.offset = 3590
    assert service.accepts(secret)
    assert service.gate.current(token)
    service.offset = 3600
    assert not service.accepts(secret)
    assert not service.gate.current(token)


@given(st.text(max_size=80) | st.from_regex(r"(?i:bearer) [!-~]{0,60}", fullmatch=True))
def test_any_field_yields_token_characters_or_nothing(field: str) -> None:
    found = _read_bearer(CIMultiDict(Authorization=field))
    assert re.fullmatch(r"[A-Za-z0-9._~+/=-]*", found, re.ASCII)
    assert field.endswith(found)


@pytest.mark.alone
async def test_token_revoked_by_the_command_is_rejected_within_two_seconds(service: Service) -> None:
    secret, token = create(service.path, "alice")
    other, _ = create(service.path, "bob")
    async with service.started():
        assert service.accepts(secret)
        # The start of the command does not count towards the two seconds.
        program = [sys.executable, "-c", "from jobsvc.cli.secrets.token import token; token()"]
        command = [*program, "revoke", token.id, "--state-dir", str(service.path.parent)]
        done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        assert done.stdout == b""
        await until(lambda: not service.accepts(secret), 2)
        assert not service.gate.current(token)
        assert service.accepts(other)


@pytest.mark.alone
async def test_new_token_is_accepted_within_two_seconds_even_if_it_is_the_first(service: Service) -> None:
    async with service.started():
        secret, token = create(service.path, "alice")
        assert not service.accepts(secret)
        await until(lambda: service.accepts(secret), 2)
        assert service.gate.current(token)


@pytest.mark.alone
async def test_missing_token_file_revokes_all_tokens(service: Service) -> None:
    secret, token = create(service.path, "alice")
    async with service.started():
        service.path.unlink()
        await until(lambda: not service.accepts(secret), 2)
        assert not service.gate.current(token)
    assert service.complaints == []


async def test_token_removed_from_the_file_is_rejected(service: Service) -> None:
    secret, token = create(service.path, "alice")
    await service.gate.file.refresh()
    service.path.write_bytes(b'{"version": 1, "tokens": []}')
    await service.gate.file.refresh()
    assert not service.accepts(secret)
    assert not service.gate.current(token)


@pytest.mark.parametrize("invalidate", ["write", "chmod"])
async def test_file_that_becomes_invalid_keeps_the_last_valid_tokens_and_is_logged_once(
    service: Service, invalidate: str
) -> None:
    secret, token = create(service.path, "alice")
    await service.gate.file.refresh()
    good = service.path.read_bytes()
    if invalidate == "write":
        service.path.write_bytes(good[:-9])
    else:
        service.path.chmod(0o644)
    for _ in range(3):
        await service.gate.file.refresh()
        assert service.accepts(secret)
    assert [type(complaint) for complaint in service.complaints] == [BadTokenFile]
    service.path.write_bytes(good)
    service.path.chmod(0o600)
    revoke(service.path, token.id)
    await service.gate.file.refresh()
    assert not service.accepts(secret)
    service.path.write_bytes(b"spoilt again")
    await service.gate.file.refresh()
    assert len(service.complaints) == 2


async def test_error_that_lasts_is_reported_each_minute(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(service.path, "alice")
    service.path.write_bytes(b"spoilt")
    await service.gate.file.refresh()
    monkeypatch.setattr(reloaded_file, "ERROR_REPEAT_S", 0.0)
    await service.gate.file.refresh()
    assert [type(complaint) for complaint in service.complaints] == [BadTokenFile, BadTokenFile]


@pytest.mark.parametrize("content", [b"", b"{half", b'{"version": 2, "tokens": []}'])
async def test_invalid_file_at_start_prevents_the_service_from_starting(
    service: Service, content: bytes
) -> None:
    service.path.parent.mkdir()
    service.path.write_bytes(content)
    service.path.chmod(0o600)
    with pytest.raises(BadTokenFile, match=r"tokens\.json"):
        async with service.started():
            pass


async def test_unresponsive_storage_keeps_the_last_valid_tokens(service: Service) -> None:
    secret, _ = create(service.path, "alice")
    await service.gate.file.refresh()
    service.disk.close()
    await service.gate.file.refresh()
    assert service.accepts(secret)
    assert [type(complaint) for complaint in service.complaints] == [StorageUnavailable]


async def test_file_watch_ends_with_the_service(service: Service) -> None:
    async with service.started():
        watches = [task for task in asyncio.all_tasks() if task.get_name() == "jobsvc-tokens"]
        assert len(watches) == 1
    assert watches[0].done()


async def test_unchanged_file_is_read_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    create(service.path, "alice")
    os.utime(service.path, (time.time() - 60,) * 2)
    await service.gate.file.refresh()
    before = service.gate._tokens
    await service.gate.file.refresh()
    assert service.gate._tokens is before


async def test_no_token_appears_in_log_messages_or_tracebacks(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret, token = create(service.path, "alice")
    revoke(service.path, token.id)
    logged: list[str] = []
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(service.started())
        for form in (f"Bearer {secret}", f"Basic {secret}", secret, f"Bearer {secret} {secret}"):
            with pytest.raises(Unauthorized) as refused:
                service.authenticate(form)
            logged += [repr(refused.value), str(refused.value), refused.value.detail]
            logged += [repr(refused.value.__cause__), repr(refused.value.__context__)]
        service.path.write_bytes(secret.encode())
        await service.gate.file.refresh()
        logged += [repr(service.complaints), caplog.text, repr(service.gate)]
    body = secret.removeprefix("jsvc_")
    digests = [token.digest.hex(), repr(token.digest)]
    assert not [text for text in logged for hidden in (body, *digests) if hidden in text]


def test_file_is_checked_often_enough_for_two_seconds() -> None:
    assert reloaded_file.RELOAD_INTERVAL_S <= 1
