"""ffprobe, ffmpeg and Chromium play and seek a film over HTTP, by token and by link."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from aiohttp import web

from tests.conftest import MakeJob, Serve
from tests.eventually import until
from tests.programs import chromium
from tests.programs.external_programs import needs, run, running_program
from tests.programs.service_runner import Service

SECONDS: Final = 20
LATE: Final = 15.0
"""Seconds into the film; a player that seeks does not read everything before it."""

ROUTE: Final = "/api/jobs/job-1/download"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One film twice: with its index (moov) after the frames, as encoders write it, and before them."""
    folder = tmp_path_factory.mktemp("films")
    made = {place: folder / f"{place}.mp4" for place in ("behind", "before")}
    source = f"testsrc2=s=480x270:r=25:d={SECONDS},noise=alls=40:allf=t"  # noise, for the size
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-crf", "30", "-pix_fmt", "yuv420p")
    quiet = ("ffmpeg", "-nostdin", "-loglevel", "error", "-y")
    subprocess.run([*quiet, "-f", "lavfi", "-i", source, *encode, str(made["behind"])], check=True)
    copy = ("-i", str(made["behind"]), "-c", "copy", "-movflags", "+faststart", str(made["before"]))
    subprocess.run([*quiet, *copy], check=True)
    assert made["behind"].read_bytes().find(b"moov") > made["behind"].read_bytes().find(b"mdat") > 0
    assert 0 < made["before"].read_bytes().find(b"moov") < made["before"].read_bytes().find(b"mdat")
    return made


@pytest.fixture(params=["behind", "before"])
def film(request: pytest.FixtureRequest, films: dict[str, Path], make_job: MakeJob) -> Path:
    """Its path, for programs that read it as a file; job-1 has it too."""
    path = films[request.param]
    make_job(output=path.read_bytes())
    return path


@pytest.fixture
async def service(serve: Serve, film: Path) -> Service:
    return await serve()


def size_of(film: Path) -> int:
    return film.stat().st_size


async def way_in(service: Service, by: str) -> tuple[object, ...]:
    """Return the arguments of ffmpeg and ffprobe that name the film."""
    if by == "token":
        field = f"Authorization: Bearer {service.token}\r\n"
        return "-headers", field, "-i", f"http://127.0.0.1:{service.port}{ROUTE}"
    return "-i", await link_to(service)


async def link_to(service: Service) -> str:
    return f"http://127.0.0.1:{service.port}{await service.link('job-1')}"


def starts(service: Service) -> list[int]:
    """Return at which byte each logged download started."""
    lines = service.downloads()
    return [int((line["range"] or "bytes 0-").split()[1].partition("-")[0]) for line in lines]


@needs("ffmpeg", "ffprobe")
@pytest.mark.parametrize("by", ["token", "link"])
async def test_ffprobe_reads_the_properties_of_the_film(service: Service, film: Path, by: str) -> None:
    ask = ("-loglevel", "error", "-of", "json", "-show_format", "-show_streams")
    ended = await run("ffprobe", *ask, *await way_in(service, by))
    assert ended.exit_code == 0, ended.stderr
    found, expected = orjson.loads(ended.stdout), await run("ffprobe", *ask, "-i", film)
    assert found["streams"] == orjson.loads(expected.stdout)["streams"]
    assert found["format"]["size"] == str(size_of(film))
    assert float(found["format"]["duration"]) == SECONDS
    if film.stem == "behind":
        await until(lambda: any(start > size_of(film) * 0.9 for start in starts(service)))


@needs("ffmpeg")
@pytest.mark.parametrize("by", ["token", "link"])
async def test_ffmpeg_seeks_to_a_frame_and_decodes_it_exactly(service: Service, film: Path, by: str) -> None:
    still = ("-frames:v", "3", "-f", "rawvideo", "-")
    seek = ("-nostdin", "-loglevel", "error", "-ss", LATE)
    ended = await run("ffmpeg", *seek, *await way_in(service, by), *still)
    assert ended.exit_code == 0, ended.stderr
    assert len(ended.stdout) == 3 * 480 * 270 * 3 // 2
    assert ended.stdout == (await run("ffmpeg", *seek, "-i", film, *still)).stdout
    size = size_of(film)
    await until(lambda: any(0.6 * size < start < 0.9 * size for start in starts(service)))


@needs("ffmpeg")
async def test_ffmpeg_copies_the_whole_film(service: Service, film: Path, tmp_path: Path) -> None:
    """Every packet's bytes, in order."""
    ended = await run(
        "ffmpeg",
        "-nostdin",
        "-loglevel",
        "error",
        *await way_in(service, "link"),
        *("-c", "copy", "-f", "streamhash", "-hash", "sha256", "-"),
    )
    assert ended.exit_code == 0, ended.stderr
    hashes = ("-c", "copy", "-f", "streamhash", "-hash", "sha256", "-")
    assert ended.stdout == (await run("ffmpeg", "-nostdin", "-i", film, *hashes)).stdout


PAGE: Final = """<!doctype html><meta charset="utf-8"><title>player</title>
<video muted autoplay playsinline src="%(film)s"></video>
<script>
const video = document.querySelector("video");
let said = Promise.resolve();
const tell = (event) => {
  const body = JSON.stringify({
    event, at: video.currentTime, duration: video.duration, wide: video.videoWidth,
    error: video.error && `${video.error.code} ${video.error.message}`,
    frames: video.getVideoPlaybackQuality().totalVideoFrames});
  said = said.then(() => fetch("/told", {method: "POST", body}));
};
video.onerror = () => tell("error");
video.onplaying = () => {
  video.onplaying = null;
  tell("playing");
  video.onseeked = () => {
    tell("seeked");
    const seeked = video.currentTime;
    video.ontimeupdate = () => {
      if (video.currentTime > seeked + 0.3) { video.ontimeupdate = null; tell("played on"); }
    };
  };
  video.currentTime = %(late)s;
};
</script>"""


@asynccontextmanager
async def page(text: str, *beside: web.RouteDef) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Serve a page, and further files, on one origin; return its URL and what the page reports."""
    reports: list[dict[str, Any]] = []

    async def show(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html")

    async def listen(request: web.Request) -> web.Response:
        reports.append(orjson.loads(await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.add_routes([web.get("/", show), web.post("/told", listen), *beside])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", reports
    finally:
        await runner.cleanup()


@needs("chromium", "ffmpeg")
@pytest.mark.timeout(150)
async def test_chromium_plays_a_video_from_a_link_and_seeks_in_it(
    serve: Serve, film: Path, tmp_path: Path
) -> None:
    """From another origin, without CORS, and whatever Content-Disposition says. The download rate prevents
    the position from being buffered before the seek.
    """
    service = await serve(download_rate=size_of(film) // 16)
    text = PAGE % {"film": await link_to(service), "late": LATE}
    async with (
        page(text) as (address, reports),
        running_program("chromium", *chromium.FLAGS, f"--user-data-dir={tmp_path / 'profile'}", address),
    ):
        await until(lambda: reports and reports[-1]["event"] in {"played on", "error"}, 120)
    assert [line["event"] for line in reports] == ["playing", "seeked", "played on"], reports
    assert {(line["wide"], line["error"]) for line in reports} == {(480, None)}
    assert round(reports[0]["duration"]) == SECONDS
    assert LATE <= reports[1]["at"] < reports[2]["at"] - 0.3
    assert reports[2]["frames"] > reports[0]["frames"]
    size = size_of(film)
    await until(lambda: any(0.6 * size < start < 0.9 * size for start in starts(service)))
