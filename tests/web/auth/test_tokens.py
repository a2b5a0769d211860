"""Tokens as clients and operators use them: which routes they open, from when, and until when."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, combinations
from pathlib import Path
from typing import Final

import orjson
import pytest

from jobsvc.domain.access import ADMIN, JOBS_READ, OUTPUTS_READ, SCOPES
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.service import StartupError
from jobsvc.settings import Settings
from jobsvc.storage.state.token_file import load, revoke
from tests.conftest import MakeJob, MakeToken, Serve, StartProcess, put
from tests.eventually import pause, until
from tests.programs.service_runner import PROJECT, Service, service_in_loop

STATUS: Final = "/api/jobs/job-1"
ROUTES: Final = (
    ("GET", STATUS, JOBS_READ),
    ("HEAD", STATUS, JOBS_READ),
    ("GET", f"{STATUS}/logs", JOBS_READ),
    ("GET", f"{STATUS}/download", OUTPUTS_READ),
    ("HEAD", f"{STATUS}/download", OUTPUTS_READ),
    ("POST", f"{STATUS}/download-links", OUTPUTS_READ),
)


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=b"film", log=b"a line\n")
    return await serve(limit_auth_failures="1000000/minute")


def command(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `jobsvc token` as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "jobsvc", "token", *map(str, words)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )


async def wait_for_status(
    service: Service, status: int, token: str | None = "", *, within: float = 15.0
) -> None:
    """Send requests until the token gets this status; fail after this many seconds."""
    ends = time.monotonic() + within
    while (await service.get(STATUS, token=token)).status != status:
        assert time.monotonic() < ends, f"not {status} within {within} s"
        await asyncio.sleep(0.01)


def subsets() -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(SCOPES, size) for size in range(len(SCOPES) + 1))


async def test_scope_opens_its_routes_for_own_jobs_and_admin_opens_all(
    service: Service, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job("of-bert", owner="bert", output=b"film", log=b"a line\n")
    tokens = {scopes: make_token("anna", scopes) for scopes in subsets()}
    await wait_for_status(service, 200, tokens[ADMIN,])
    async with service.connect() as link:
        for scopes, token in tokens.items():
            for method, target, needed in ROUTES:
                opens = needed in scopes or ADMIN in scopes
                own = await link.ask(method, target, token=token)
                assert own.status == (403 if not opens else 201 if method == "POST" else 200), (
                    scopes,
                    target,
                )
                others = await link.ask(method, target.replace("job-1", "of-bert"), token=token)
                assert others.status == (own.status if ADMIN in scopes or not opens else 404)
                if not opens:
                    assert f'scope="{needed}"' in own.headers["WWW-Authenticate"]
                    assert method == "HEAD" or own.code == "insufficient-scope"


async def test_token_is_valid_until_it_expires(
    serve: Serve, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job(output=b"film")
    service = await serve(limit_auth_failures="1000000/minute")
    ends = time.time() + 5
    short = make_token(expires=ends)
    await wait_for_status(service, 200, short, within=4.5)
    requests: list[tuple[float, int, float]] = []
    async with service.connect() as link:
        while not requests or requests[-1][1] == 200:
            started_at = time.time()
            answer = await link.ask("GET", STATUS, token=short)
            requests.append((started_at, answer.status, time.time()))
            assert started_at < ends + 5
    assert {status for _, status, answered in requests if answered < ends - 0.002} == {200}
    assert requests[-1][1] == 401
    assert requests[-1][2] >= ends - 0.002
    assert [status for started_at, status, _ in requests if started_at > ends + 0.002] in ([], [401])


@pytest.mark.alone
async def test_token_changes_take_effect_within_two_seconds(
    start_process: StartProcess, make_job: MakeJob, state_dir: Path
) -> None:
    make_job()
    service = start_process("--limit-auth-failures", "1000000/minute")
    first = load(state_dir / "tokens.json")[0].id
    made = await asyncio.to_thread(command, "create", "--owner", "anna", "--state-dir", state_dir)
    new = made.stdout.strip()
    await wait_for_status(service, 200, new, within=2)
    assert (await service.get(STATUS)).status == 200
    await asyncio.to_thread(command, "revoke", first, "--state-dir", state_dir)
    await wait_for_status(service, 401, within=2)
    assert (await service.get(STATUS, token=new)).status == 200
    assert (await service.download("job-1")).code == "unauthorized"
    assert service.process.poll() is None
    assert len(service.lines("serving")) == 1
    assert service.lines("token-file-unusable") == []


async def test_first_token_may_be_created_after_the_start(
    jobs_root: Path, state_dir: Path, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job()
    settings = Settings(jobs_root, port=0, state_dir=state_dir, watch=WatchMode.POLL, shutdown_grace=0)
    async with service_in_loop(settings) as service:
        assert (await service.get(STATUS)).status == 401
        await wait_for_status(service, 200, make_token())


async def test_removed_token_file_revokes_all_tokens_until_it_returns(
    service: Service,
) -> None:
    path = service.state_dir / "tokens.json"
    path.rename(path.with_name("aside"))
    await wait_for_status(service, 401)
    path.with_name("aside").rename(path)
    await wait_for_status(service, 200)
    assert await service.metric("jobsvc_token_file_errors_total") == 0


def half_written(path: Path) -> None:
    put(path, path.read_bytes()[:-20])
    path.chmod(0o600)


def opened_to_others(path: Path) -> None:
    path.chmod(0o644)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def misspelled_key(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"expires"', b'"expire"'))


def too_large(path: Path) -> None:
    os.truncate(path, 17 << 20)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def symbolic_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def another_version(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 2'))


def not_utf_8(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"anna", b"\xff\xfe"))


def repeated_token(path: Path) -> None:
    record = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps(record | {"tokens": record["tokens"] * 2}))


SPOILT: Final[dict[Callable[[Path], None], str]] = {
    half_written: "not JSON",
    emptied: "not JSON",
    not_utf_8: "not JSON",
    opened_to_others: "users other than its owner can read or write it",
    misspelled_key: "tokens[0]: has an unknown key",
    too_large: "larger than",
    folder: "not a regular file",
    fifo: "not a regular file",
    symbolic_link: "a symbolic link",
    link_to_itself: "a symbolic link",
    another_version: "version",
    repeated_token: "two tokens have the same id",
}


def restored(path: Path, good: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    put(path, good)
    path.chmod(0o600)


async def test_token_file_that_becomes_invalid_is_logged_and_the_last_valid_one_is_kept(
    start_process: StartProcess, make_job: MakeJob, make_token: MakeToken, state_dir: Path
) -> None:
    make_job()
    endless = "1000000/minute"
    service = start_process("--limit-status", endless, "--limit-auth-failures", endless)
    path = state_dir / "tokens.json"
    invalidations = (half_written, opened_to_others, folder, fifo)
    for count, invalidate in enumerate(invalidations, 1):
        good = path.read_bytes()
        invalidate(path)
        ends = time.monotonic() + 15
        while await service.metric("jobsvc_token_file_errors_total") < count:
            assert time.monotonic() < ends, invalidate.__name__
            assert (await service.get(STATUS)).status == 200
            await asyncio.sleep(0.01)
        assert (await service.get(STATUS)).status == 200
        assert (await service.get(STATUS, token="jsvc_" + "x" * 43)).status == 401
        assert (await service.get("/readyz", token=None)).status == 200
        while len(service.lines("token-file-unusable")) < count:
            await pause()
        log_line = service.lines("token-file-unusable")[-1]
        assert f"{path}: {SPOILT[invalidate]}" in log_line["reason"]
        assert log_line["kept"] == "the last valid version"
        restored(path, good)
        await wait_for_status(service, 200, make_token())
    assert len(service.lines("token-file-unusable")) == len(invalidations), "each logged once"


async def test_revocation_works_while_the_labels_are_unusable(
    start_process: StartProcess, make_job: MakeJob, state_dir: Path
) -> None:
    make_job()
    service = start_process("--limit-auth-failures", "1000000/minute")
    (token,) = load(state_dir / "tokens.json")
    labels = state_dir / "token-labels.json"
    labels.write_bytes(b"{")
    labels.chmod(0o600)
    results = await asyncio.to_thread(command, "revoke", token.id, "--state-dir", state_dir)
    assert f"Warning: {labels}: not JSON; correct it, or remove it" in results.stderr
    await wait_for_status(service, 401)
    await until(lambda: service.lines("token-labels-unusable"))
    (line,) = service.lines("token-labels-unusable")
    assert line["reason"] == f"{labels}: not JSON"
    assert await service.metric("jobsvc_token_label_errors_total") == 1
    assert service.lines("token-file-unusable") == []


async def test_unusable_labels_do_not_prevent_the_start(
    jobs_root: Path, state_dir: Path, make_job: MakeJob, make_token: MakeToken
) -> None:
    make_job()
    secret = make_token()
    (state_dir / "token-labels.json").mkdir()
    settings = Settings(jobs_root, port=0, state_dir=state_dir, watch=WatchMode.POLL, shutdown_grace=0)
    async with service_in_loop(settings) as service:
        assert (await service.get(STATUS, token=secret)).status == 200
        assert await service.metric("jobsvc_token_label_errors_total") == 1


@pytest.mark.parametrize("invalidate", SPOILT, ids=lambda invalidate: invalidate.__name__)
async def test_unusable_token_file_at_start_is_an_error_that_names_it(
    invalidate: Callable[[Path], None], jobs_root: Path, state_dir: Path, make_token: MakeToken
) -> None:
    secret, path = make_token(), state_dir / "tokens.json"
    invalidate(path)
    settings = Settings(jobs_root, port=0, state_dir=state_dir, watch=WatchMode.POLL, shutdown_grace=0)
    with pytest.raises(StartupError) as refused:
        async with service_in_loop(settings):
            """The request does not get that far."""
    assert f"{path}: {SPOILT[invalidate]}" in str(refused.value)
    assert secret.removeprefix("jsvc_") not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o666, 0o000])
async def test_token_file_with_unsafe_or_unreadable_mode_is_refused_at_start(
    mode: int, jobs_root: Path, state_dir: Path, make_token: MakeToken
) -> None:
    make_token()
    (state_dir / "tokens.json").chmod(mode)
    settings = Settings(jobs_root, port=0, state_dir=state_dir, watch=WatchMode.POLL, shutdown_grace=0)
    if mode == 0 and os.geteuid() == 0:
        pytest.skip("root may read everything")
    with pytest.raises(StartupError, match=r"tokens\.json: (users other than its owner|Permission denied)"):
        async with service_in_loop(settings):
            """The request does not get that far."""


GOOD: Final = (
    "Bearer {}",
    "bearer {}",
    "BEARER {}",
    "bEaReR   {}",
    " Bearer {}",
    "Bearer {}  ",
    "Bearer {}\t",
)
"""The scheme is case-insensitive; whitespace around a field is not part of it."""
BAD: Final = (
    *("", "{}", "Bearer", "Bearer ", "Bearer{}", "Bearer\t{}", "Bearer={}", "Bearer: {}", "Bearer {} x"),
    *("Bearer {},", "Bearer {}, Bearer {}", "Bearer {};", 'Bearer "{}"', "Bearer token={}", "Bearer <{}>"),
    *(
        "Bearer {}=",
        "Bearer {}a",
        "Bearer x{}",
        "Basic {}",
        "Token {}",
        "DPoP {}",
        "Digest {}",
        "Bearer\xa0{}",
    ),
    *("Bearer é{}", "Bearer {}\xff", "Bearer Bearer {}", "Bearer " + "x" * 8000, "Bearer " + "=" * 400, "*"),
    "Bearer jsvc_" + "x" * 43,
)


async def test_exactly_one_bearer_field_is_accepted_and_all_else_is_refused_alike(
    service: Service, make_token: MakeToken, state_dir: Path
) -> None:
    expired, gone = make_token(expires=time.time() - 1), make_token()
    revoke(state_dir / "tokens.json", load(state_dir / "tokens.json")[-1].id)
    await wait_for_status(service, 401, gone)
    secret = str(service.token)
    results = set()
    async with service.connect() as link:
        for form in GOOD:
            fields = [("Authorization", form.format(secret))]
            assert (await link.ask("GET", STATUS, fields)).status == 200, form
        wrong = [form.replace("{}", secret) for form in BAD]
        wrong += [
            f"Bearer {secret[:-1]}",
            f"Bearer {secret.swapcase()}",
            f"Bearer {expired}",
            f"Bearer {gone}",
        ]
        for form in wrong:
            for target in (STATUS, f"{STATUS}/download", "/api/jobs/unknown"):
                answer = await link.ask("GET", target, [("Authorization", form)])
                assert (answer.status, answer.code) == (401, "unauthorized"), form[:40]
                results.add((answer.json()["detail"], answer.headers["WWW-Authenticate"]))
        twice = [("Authorization", f"Bearer {secret}")] * 2
        assert (await link.ask("GET", STATUS, twice)).status == 401
    assert results == {("The token is unknown, expired or revoked.", 'Bearer realm="jobsvc"')}


async def test_token_is_accepted_only_in_the_authorization_field(service: Service) -> None:
    secret = service.token
    fields: tuple[list[tuple[str, str]], ...] = (
        [],
        [("Proxy-Authorization", f"Bearer {secret}")],
        [("X-Authorization", f"Bearer {secret}")],
        [("X-Api-Key", f"{secret}")],
        [("Cookie", f"access_token={secret}; token={secret}; Authorization=Bearer {secret}")],
        [("X-Forwarded-Authorization", f"Bearer {secret}"), ("X-Forwarded-User", "anna")],
    )
    queries = ("", f"?access_token={secret}", f"?token={secret}", f"?Authorization=Bearer%20{secret}")
    async with service.connect() as link:
        for some in fields:
            for query in queries:
                for method, target, _ in ROUTES:
                    answer = await link.ask(method, target + query, some)
                    assert answer.status == 401, (some, query)
                    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="jobsvc"'


async def test_open_routes_need_no_token_and_ignore_a_wrong_one(service: Service) -> None:
    async with service.connect() as link:
        for target in ("/healthz", "/readyz", "/metrics", "/api/openapi.json"):
            for token in (None, "jsvc_" + "x" * 43):
                assert (await link.ask("GET", target, token=token)).status in {200, 503}
