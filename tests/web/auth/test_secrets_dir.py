"""Tokens and link key in a secrets directory, which the service only reads."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jobsvc.service import StartupError
from jobsvc.storage.state import link_key, token_file
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.service_runner import Service
from tests.storage.state.secrets_folders import KubernetesSecret

pytestmark = pytest.mark.alone  # what is changed is applied within two seconds

STATUS = "/api/jobs/job-1"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of secrets on the administrator's machine."""
    folder = tmp_path / "source"
    folder.mkdir(mode=0o700)
    link_key.create_shared(folder / "link.key")
    return folder


def files(source: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in source.iterdir() if not path.name.startswith(".")}


def create(source: Path, owner: str = "anna") -> tuple[str, str]:
    secret, token = token_file.create(source / "tokens.json", owner, shared=True)
    return secret, token.id


async def wait_for(service: Service, token: str, status: int) -> None:
    async with asyncio.timeout(2):
        while (await service.get(STATUS, token=token)).status != status:
            await pause()


async def test_replaced_secret_of_kubernetes_is_applied_within_two_seconds(
    source: Path, tmp_path: Path, serve: Serve, make_job: MakeJob, state_dir: Path
) -> None:
    make_job(output=b"film")
    first, first_id = create(source)
    secret = KubernetesSecret(tmp_path / "secret")
    secret.replace(files(source))
    mounted = set(secret.folder.iterdir())
    service = await serve(secrets_dir=secret.folder, limit_auth_failures="1000000/minute")
    assert (await service.get(STATUS, token=first)).status == 200
    assert (await service.get(STATUS)).status == 401  # this token is in the state directory
    second, _ = create(source)
    token_file.revoke(source / "tokens.json", first_id, shared=True)
    secret.replace(files(source))
    await wait_for(service, second, 200)
    await wait_for(service, first, 401)
    assert {path.name for path in secret.folder.iterdir()} - {path.name for path in mounted} == {"..2026_1"}
    assert not (state_dir / "link.key").exists()


async def test_links_of_one_instance_are_valid_at_another_with_the_same_secrets(
    source: Path, serve: Serve, make_job: MakeJob
) -> None:
    make_job(output=b"film")
    token, _ = create(source)
    one, other = await serve(secrets_dir=source), await serve(secrets_dir=source)
    link = await one.link("job-1", token=token)
    assert (await other.get(link, token=None)).body == b"film"


async def test_service_does_not_start_without_the_key_or_with_an_exposed_password(
    source: Path, serve: Serve
) -> None:
    (source / "shared-state-password").write_bytes(b"secret")
    with pytest.raises(StartupError, match=r"shared-state-password: .* run chmod 640 on it"):
        await serve(secrets_dir=source, shared_state="redis://127.0.0.1:1")
    (source / "link.key").unlink()
    with pytest.raises(StartupError, match=r"link\.key: missing; run `jobsvc secrets create"):
        await serve(secrets_dir=source)
    assert not (source / "link.key").exists()


async def test_remedy_for_missing_tokens_names_the_secrets_directory(
    source: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    await serve(secrets_dir=source)
    assert f"--secrets-dir {source}" in capsys.readouterr().out
