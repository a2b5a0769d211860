"""Nothing of another owner ever appears in a stream, whatever happens to jobs and their owners."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsvc.domain.access import JOBS_READ
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.settings import Settings
from jobsvc.storage.state import token_file
from tests.clients.raw_http import request
from tests.eventually import until
from tests.programs.service_runner import Service, service_in_loop

OWNERS: Final = ("anna", "bob")
JOBS: Final = ("a", "b")


class Change(NamedTuple):
    """What the farm does to one job; without an `owner` the job is removed."""

    job_id: str
    owner: str | None
    status: str
    whole: bool
    """Whether it replaces the directory rather than the record."""


ACTS: Final = st.lists(
    st.builds(
        Change,
        st.sampled_from(JOBS),
        st.sampled_from([*OWNERS, *OWNERS, None]),
        st.sampled_from(["queued", "rendering", "rendering", "failed", "completed"]),
        st.booleans(),
    ),
    min_size=2,
    max_size=14,
)


def record(change: Change, number: int) -> bytes:
    """Make a record that contains its owner in each part."""
    mark = f"of-{change.owner}-{number}"
    return orjson.dumps(
        {
            "owner": change.owner,
            "status": change.status,
            "error": mark,
            "phase": mark,
            "metadata": {"note": mark},
        }
    )


def apply_change(root: Path, change: Change, number: int) -> None:
    """Apply the change as a farm that reuses an id: the log belongs to the new owner before
    the record does.
    """
    folder, temporary = root / change.job_id, root / f".new-{number}"
    if change.owner is None or change.whole:
        if folder.exists():
            folder.rename(root / f".old-{number}")
        if change.owner is None:
            return
        temporary.mkdir()
        (temporary / "status.json").write_bytes(record(change, number))
        (temporary / "render.log").write_text(f"of-{change.owner}-{number}\n" * 3)
        temporary.rename(folder)
        return
    folder.mkdir(exist_ok=True)
    (folder / "render.log").unlink(missing_ok=True)
    temporary.write_bytes(record(change, number))
    temporary.rename(folder / "status.json")
    (folder / "render.log").write_text(f"of-{change.owner}-{number}\n" * 3)


class Listener:
    """Reads everything that a stream sends, and opens it again when it ends."""

    def __init__(self, service: Service, target: str, token: str) -> None:
        self.received = b""
        self._service = service
        self._request = request("GET", target, token=token)
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            async with self._service.connect() as link:
                link.send(self._request)
                while data := await link.reader.read(1 << 16):
                    self.received += data
                    if b" 404 " in data[:16]:
                        break
            await asyncio.sleep(0.01)

    async def receives(self, word: bytes) -> None:
        await until(lambda: word in self.received, 30)

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def listeners(service: Service, secrets: dict[str, str]) -> AsyncIterator[dict[str, list[Listener]]]:
    targets = ["/api/events", "/api/events?status=rendering"]
    targets += [f"/api/jobs/{job_id}/{what}" for job_id in JOBS for what in ("events", "logs?follow=1")]
    found = {
        owner: [Listener(service, target, secret) for target in targets] for owner, secret in secrets.items()
    }
    try:
        yield found
    finally:
        for listener in chain(*found.values()):
            await listener.end()


@settings(max_examples=12, deadline=None)
@given(acts=ACTS)
async def test_stream_contains_nothing_of_another_owner(acts: list[Change]) -> None:
    folder = Path(tempfile.mkdtemp())
    root = folder / "jobs"
    root.mkdir()
    secrets = {
        owner: token_file.create(folder / "state" / "tokens.json", owner, [JOBS_READ])[0] for owner in OWNERS
    }
    limits: dict[str, Any] = dict.fromkeys(("limit_status", "limit_events", "limit_logs"), "1000000/second")
    ready = Settings(
        root,
        state_dir=folder / "state",
        port=0,
        watch=WatchMode.POLL,
        poll_interval=0.05,
        shutdown_grace=0,
        **limits,
    )
    try:
        async with service_in_loop(ready) as service, listeners(service, secrets) as found:
            for number, change in enumerate(acts):
                apply_change(root, change, number)
                for owner, secret in secrets.items():
                    # Finished jobs are not polled: a request has to refresh them.
                    answer = await service.get(f"/api/jobs/{change.job_id}", token=secret)
                    assert f"of-{other(owner)}".encode() not in answer.body
            for owner in OWNERS:
                apply_change(root, Change(f"last-{owner}", owner, "rendering", whole=True), 1000)
                assert (await service.get(f"/api/jobs/last-{owner}", token=secrets[owner])).status == 200
                for listener in found[owner][:2]:
                    await listener.receives(f"of-{owner}-1000".encode())
            for owner in OWNERS:
                for listener in found[owner]:
                    assert f"of-{other(owner)}".encode() not in listener.received
                    assert f'"{other(owner)}"'.encode() not in listener.received
    finally:
        shutil.rmtree(folder)


def other(owner: str) -> str:
    return OWNERS[1 - OWNERS.index(owner)]
