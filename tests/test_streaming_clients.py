"""`curl -N` and Chromium with fetch follow a render by ffmpeg to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from aiohttp import ClientSession, web

from jobsvc.cli.demo_render import DemoFarm
from tests.conftest import StartProcess
from tests.eventually import pause, until
from tests.programs import chromium
from tests.programs.external_programs import needs, running_program
from tests.programs.service_runner import Process
from tests.test_media_players import page
from tests.test_real_render import FRAMES, JOB, rendering

EVENTS: Final = f"/api/jobs/{JOB}/events"
LOG: Final = f"/api/jobs/{JOB}/logs?follow=1"
END: Final = 60.0
"""Seconds; a render takes about four."""

# EventSource cannot send a token; fetch can.
PAGE: Final = """<!doctype html><meta charset="utf-8"><title>follower</title>
<script>
let said = Promise.resolve();
const tell = (told) => {
  said = said.then(() => fetch("/told", {method: "POST", body: JSON.stringify(told)}));
};
const follow = async (what, address) => {
  const answer = await fetch(address, {headers: {Authorization: "Bearer %(token)s"}});
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const {done, value} = await reader.read();
    if (done) { tell({what, end: true}); return; }
    const blocks = (rest + value).split("\\n\\n");
    rest = blocks.pop();
    blocks.forEach((block) => tell({what, block}));
  }
};
follow("events", "%(events)s").catch((error) => tell({what: "events", error: `${error}`}));
follow("log", "%(log)s").catch((error) => tell({what: "log", error: `${error}`}));
</script>"""


@pytest.fixture
def farm(jobs_root: Path) -> DemoFarm:
    farm = DemoFarm(jobs_root / JOB, "ffmpeg", owner="anna", frames=FRAMES, on_state=lambda *_: None)
    farm.queue()
    return farm


def data_of(blocks: Iterable[str], name: str) -> list[str]:
    """Return the data of each event with that name."""
    events = [block.split("\n") for block in blocks]
    return [
        "\n".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))
        for lines in events
        if f"event: {name}" in lines
    ]


def assert_complete(jobs_root: Path, events: list[str], log: list[str]) -> None:
    """Compare what a follower received with what the farm did."""
    states = [orjson.loads(data) for data in data_of(events, "job")]
    assert list(dict.fromkeys(state["status"] for state in states)) == ["queued", "rendering", "completed"]
    progress = [state["progress"] for state in states]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0, 100)
    assert len(set(progress)) >= 5
    assert states[-1]["downloadUrl"].startswith(f"/api/jobs/{JOB}/download?version=")
    lines = (jobs_root / JOB / "render.log").read_text("utf-8").splitlines()
    assert "\n".join(data_of(log, "log")).split("\n") == lines


@needs("ffmpeg", "curl")
@pytest.mark.timeout(120)
async def test_curl_follows_a_render_to_its_end(
    start_process: StartProcess, farm: DemoFarm, jobs_root: Path
) -> None:
    service = start_process()
    words = ("-sSN", "--fail", "-H", f"Authorization: Bearer {service.token}")
    address = f"http://127.0.0.1:{service.port}"
    async with (
        running_program("curl", *words, f"{address}{EVENTS}", capture=True) as events,
        running_program("curl", *words, f"{address}{LOG}", capture=True) as log,
    ):
        await both_follow(service)
        with rendering(farm):
            received = [
                (await follower.communicate())[0].decode().split("\n\n") for follower in (events, log)
            ]
        assert (events.returncode, log.returncode) == (0, 0)
    assert_complete(jobs_root, *received)


@needs("ffmpeg", "chromium")
@pytest.mark.timeout(200)
async def test_chromium_follows_a_render_to_its_end(
    start_process: StartProcess, farm: DemoFarm, jobs_root: Path, tmp_path: Path
) -> None:
    service = start_process()
    text = PAGE % {"token": service.token, "events": EVENTS, "log": LOG}
    async with (
        proxied(service, text) as (address, received),
        running_program("chromium", *chromium.FLAGS, f"--user-data-dir={tmp_path / 'profile'}", address),
    ):
        await until(lambda: {line["what"] for line in received} == {"events", "log"}, END)
        with rendering(farm):
            await until(lambda: sum("block" not in line for line in received) == 2, END)
    assert [line for line in received if "error" in line] == []
    blocks = {what: [line["block"] for line in received if line["what"] == what and "block" in line]
              for what in ("events", "log")}  # fmt: skip
    assert_complete(jobs_root, blocks["events"], blocks["log"])


async def both_follow(service: Process) -> None:
    """Wait until a stream of events and one of a log are open."""
    for what in ("job", "log"):
        async with asyncio.timeout(END):
            while not await service.metric(f'jobsvc_event_streams{{of="{what}"}}'):
                await pause()


@asynccontextmanager
async def proxied(service: Process, text: str) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Serve a page and the service on one origin; return the URL and what the page reports."""

    async def pass_on(request: web.Request) -> web.StreamResponse:
        fields = {"Authorization": request.headers["Authorization"]}
        async with session.get(f"http://127.0.0.1:{service.port}{request.path_qs}", headers=fields) as answer:
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
        return response

    async with ClientSession() as session, page(text, web.get("/api/{rest:.*}", pass_on)) as served:
        yield served
