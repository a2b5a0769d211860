"""Operators list and revoke links, in the files of the service or in Redis."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import main
from jobsvc.shared_state.link_exchange import LinkStore, use_links
from jobsvc.storage.state import token_file
from jobsvc.storage.state.link_record import IssuedLink, link_id
from jobsvc.storage.state.links_file import LinksFile
from jobsvc.storage.state.revoked_links_file import load_revoked
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.external_programs import needs
from tests.programs.redis_server import RedisServer, redis_server
from tests.programs.service_runner import Service
from tests.storage.state.secrets_folders import KubernetesSecret

SIGNATURE = "WyUXhO2qSmPAfXZlMvgvvLvLzW5B1p1mKyr3cTqSNlw"
URL = f"https://h/api/jobs/j/download/a?version=v&token=t&expires=1&signature={SIGNATURE}"
ID = link_id(SIGNATURE)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder


def run(*words: object, text: str | None = None) -> Result:
    variables = {f"JOBSVC_{name}": "" for name in ("STATE_DIR", "SECRETS_DIR", "SHARED_STATE", "CONFIG")}
    return CliRunner().invoke(main, ["link", *map(str, words)], env=variables, input=text)


def record(state: Path, *links: IssuedLink) -> None:
    LinksFile(state / "links.jsonl").append(links, 0)


def link(name: str = ID, by: str = "none", *, lifetime: float = 60) -> IssuedLink:
    now = round(time.time(), 3)
    return IssuedLink(name, "shot-1", "film.mp4", by, "anna", now, now + lifetime)


def states(*words: object) -> dict[str, str]:
    result = run("list", "--json", *words)
    assert result.exit_code == 0, result.output
    return {row["id"]: row["state"] for row in map(json.loads, result.stdout.splitlines())}


def test_state_of_a_link_is_that_of_its_id_its_time_and_its_token(state: Path) -> None:
    _, live = token_file.create(state / "tokens.json", "anna")
    _, old = token_file.create(state / "tokens.json", "anna")
    token_file.revoke(state / "tokens.json", old.id)
    links = {
        "1" * 16: link("1" * 16, by=live.id),
        "2" * 16: link("2" * 16, by=old.id),
        "3" * 16: link("3" * 16, lifetime=-1),
        "4" * 16: link("4" * 16, by="deleted"),
        ID: link(by=live.id),
    }
    record(state, *links.values())
    run("revoke", ID, "--state-dir", state)
    shown = states("--state-dir", state)
    assert list(shown.values()) == ["live", "token-revoked", "expired", "live", "revoked"]


def test_table_has_what_identifies_a_link(state: Path) -> None:
    record(state, link(by="0123456789ab"))
    titles, row = run("list", "--state-dir", state).stdout.splitlines()
    assert titles.split() == ["ID", "JOB", "NAME", "TOKEN", "OWNER", "CREATED", "EXPIRES", "STATE"]
    assert row.split()[:5] == [ID, "shot-1", "film.mp4", "0123456789ab", "anna"]


@pytest.mark.parametrize("by", ["id", "url", "stdin"])
def test_link_is_revoked_until_it_expires(by: str, state: Path) -> None:
    record(state, link())
    name = {"id": ID, "url": URL, "stdin": "-"}[by]
    result = run("revoke", name, "--state-dir", state, text=f"{URL}\n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Link {ID} to film.mp4 of shot-1 is revoked in {state}/revoked-links.json.\n"
    assert load_revoked(state / "revoked-links.json").links == {ID: pytest.approx(time.time() + 60, abs=30)}


def test_unknown_link_is_revoked_for_the_longest_lifetime(state: Path) -> None:
    result = run("revoke", URL, "--state-dir", state)
    assert result.exit_code == 0
    assert "No link with this id is on record here" in result.stderr
    [expires] = load_revoked(state / "revoked-links.json").links.values()
    assert expires == pytest.approx(time.time() + 31_536_000, abs=60)


@pytest.mark.parametrize("name", ["", "x", ID.upper(), f"https://h/a?signature={SIGNATURE}x"])
def test_other_text_is_wrong_use_and_is_not_printed(name: str, state: Path) -> None:
    result = run("revoke", "-", "--state-dir", state, text=name)
    assert result.exit_code == 2
    assert "neither the id of a link" in result.stderr
    assert SIGNATURE not in result.stderr
    assert not (state / "revoked-links.json").exists()


def test_option_that_redis_py_does_not_have_is_wrong_use(state: Path) -> None:
    result = run("list", "--state-dir", state, "--shared-state", "redis://127.0.0.1?ssl=1")
    assert result.exit_code == 2
    assert result.output.startswith("Error: the URL of --shared-state has invalid options: ")


def test_unusable_files_are_named(state: Path, tmp_path: Path) -> None:
    (state / "links.jsonl").touch(mode=0o644)
    (state / "links.jsonl").chmod(0o644)
    result = run("list", "--state-dir", state)
    assert result.exit_code == 2
    assert f"{state}/links.jsonl: users other than its owner" in result.stderr
    (state / "links.jsonl").unlink()
    (state / "revoked-links.json").write_text("broken")
    (state / "revoked-links.json").chmod(0o600)
    for words in (["list"], ["revoke", ID]):
        result = run(*words, "--state-dir", state)
        assert result.exit_code == 2
        assert "revoked-links.json: not an object" in result.stderr
    secret = KubernetesSecret(tmp_path / "secret")
    secret.replace({"revoked-links.json": b'{"links": {}}'})
    result = run("revoke", ID, "--state-dir", state, "--secrets-dir", secret.folder)
    assert "change the secret where it is made" in result.stderr


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, "--requirepass", "hunter2") as running:
        yield running


@pytest.fixture
def secrets_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    assert CliRunner().invoke(main, ["secrets", "create", "--secrets-dir", str(folder)]).exit_code == 0
    (folder / "shared-state-password").write_text("hunter2\n")
    (folder / "shared-state-password").chmod(0o600)
    return folder


@pytest.mark.alone
@needs("redis-server")
async def test_link_is_listed_and_revoked_through_redis_at_all_instances(
    redis: RedisServer, secrets_dir: Path, serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(output=b"film")
    token, _ = token_file.create(secrets_dir / "tokens.json", "anna", shared=True)
    options: dict[str, object] = {"secrets_dir": secrets_dir, "limit_auth_failures": "1000000/minute"}
    shared = {"shared_state": redis.url, **options}
    one = await serve(instance="one", **shared)
    other = await serve(instance="other", **shared)
    url = await one.link("job-1", token=token)
    name = link_id(url.rpartition("=")[2])
    words = ["--shared-state", redis.url, "--secrets-dir", secrets_dir, "--state-dir", state_dir]

    async def command(*arguments: object) -> Result:
        return await asyncio.to_thread(run, *arguments, *words)

    async with asyncio.timeout(5):
        while name not in (await command("list", "--json")).stdout:
            await pause()
    result = await command("revoke", url)
    assert result.stderr == f"Link {name} to film.mp4 of job-1 is revoked in {redis.url}.\n"
    for service in (one, other):
        await wait_until_refused(service, url)
    listed = await command("list", "--json")
    assert json.loads(listed.stdout)["state"] == "revoked"
    assert "hunter2" not in result.output + listed.output
    assert not (secrets_dir / "revoked-links.json").exists()


async def wait_until_refused(service: Service, url: str) -> None:
    async with asyncio.timeout(2):
        while (await service.get(url, token=None)).status != 401:
            await pause()


@needs("redis-server")
def test_redis_that_cannot_be_used_is_exit_code_1(redis: RedisServer, secrets_dir: Path, state: Path) -> None:
    url = redis.url.replace("//", "//:wrong@")
    result = run("list", "--shared-state", url, "--state-dir", state)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {url.replace('wrong', '***')}: ")
    assert "wrong" not in result.stderr
    (secrets_dir / "shared-state-password").chmod(0o644)
    result = run("list", "--shared-state", redis.url, "--secrets-dir", secrets_dir)
    assert result.exit_code == 2
    assert "shared-state-password: " in result.stderr
    asyncio.run(use_links(redis.url.replace("//", "//:hunter2@"), "jobsvc", LinkStore.revoked))
