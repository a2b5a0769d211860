"""`Want-Repr-Digest` with the list of files: requests the digests of a page, which later lists contain."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import pytest

from jobsvc.domain.access import OUTPUTS_READ
from jobsvc.index.digests import digest_queue
from tests.conftest import MakeJob, MakeToken, Serve, put
from tests.eventually import pause
from tests.programs.service_runner import Service
from tests.web.outputs.rendered import FILES, MEMBERS, render

LIST: Final = "/api/jobs/job-1/files"
WANT: Final = ("Want-Repr-Digest", "sha-256=1")
TURNED_AWAY: Final = 'jobsvc_digests_total{outcome="turned-away"}'

pytestmark = pytest.mark.usefixtures("treat_new_files_as_stable")


async def digests(service: Service, query: str = "", *, token: str | None = "") -> dict[str, Any]:
    """Request the list with the digests, and return those that it has."""
    answer = await service.get(f"{LIST}{query}", WANT, token=token)
    assert answer.status == 200, answer
    return {f"{file['output']}/{file['path']}": file.get("sha256") for file in answer.json()["files"]}


async def all_digests(service: Service, query: str = "", *, token: str | None = "") -> dict[str, Any]:
    """Repeat the request until each file has its digest."""
    while None in (known := await digests(service, query, token=token)).values():
        await pause()
    return known


async def waiting(service: Service) -> float:
    """Return the number of digests that were requested or computed."""
    return await service.metric("jobsvc_digests_waiting") + await service.metric("jobsvc_digests_known")


async def test_repeated_list_has_the_digest_of_each_file(service: Service) -> None:
    assert await all_digests(service) == {
        name: hashlib.sha256(FILES[path]).hexdigest() for name, path in MEMBERS.items()
    }


async def test_only_the_files_of_the_page_are_requested(service: Service) -> None:
    await all_digests(service, "?limit=2")
    assert await waiting(service) == 2


async def test_replaced_file_is_requested_again(service: Service, folder: Path) -> None:
    await all_digests(service)
    put(folder / "preview.mp4", b"new")
    assert (await all_digests(service))["preview/preview.mp4"] == hashlib.sha256(b"new").hexdigest()


async def test_scope_of_the_list_is_enough(serve: Serve, make_job: MakeJob, make_token: MakeToken) -> None:
    render(make_job)
    token = make_token(scopes=(OUTPUTS_READ,))
    assert await all_digests(await serve(), token=token)


@pytest.mark.parametrize("wish", ["sha-256=0", "md5=1", "="])
async def test_list_without_a_wish_for_sha256_requests_none(service: Service, wish: str) -> None:
    assert (await service.get(LIST, ("Want-Repr-Digest", wish))).status == 200
    assert await waiting(service) == 0


async def test_head_requests_none(service: Service) -> None:
    assert (await service.ask("HEAD", LIST, (WANT,))).status == 200
    assert await waiting(service) == 0


async def test_requests_above_the_limit_are_made_by_later_lists(
    serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest_queue.DigestQueue.__init__, "__defaults__", (3,))
    render(make_job)
    service = await serve()
    await digests(service)
    assert await service.metric(TURNED_AWAY) == 1  # and not one for each file
    assert len(await all_digests(service)) == len(MEMBERS)
