"""Make the pictures of the web page in README: `python docs/screenshots.py`, with Chromium and ffmpeg.

They show jobs that the script writes, with times relative to now, and the film of a sample job.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import orjson
from playwright.sync_api import Page

DOCS: Final = Path(__file__).parent
REPOSITORY: Final = DOCS.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.harness import browser, servers  # noqa: E402 - found by the line above

FILM_JOB: Final = "opening-title-0042"
FILMS: Final = REPOSITORY / "sample_jobs" / FILM_JOB / "output"
SEEK: Final = "film => new Promise((resolve) => { film.onseeked = resolve; film.currentTime = 2; })"
COLORS: Final = 96
"""Of a picture's palette."""
SHOTS: Final = ("op_0010", "op_0020", "kettle_spin", "harbor_0140", "harbor_0150", "city_fly", "logo_end")
ERRORS: Final = (
    "Blender left with exit code 11",
    "plates/plate_0019.png is cut short",
    "CUDA out of memory: 11.2 GB of 12.0 GB in use",
)
STATES: Final = (
    *(
        "queued",
        "queued",
        "rendering",
        "queued",
        "rendering",
        "rendering",
        "failed",
        "rendering",
        "completed",
    ),
    *("completed", "rendering", "completed", "completed", "failed", "completed", "canceled", "completed"),
    *("completed", "failed", "completed", "completed", "completed", "completed", "completed"),
)
"""Of the newest job first."""
PHASES: Final = ("beauty pass", "denoising", "encoding", "shadow pass")


def main() -> None:
    """Write both pictures."""
    with TemporaryDirectory(prefix="jobsvc-screenshots-") as folder:
        scratch = Path(folder)
        write_jobs(scratch / "jobs")
        token = servers.token(scratch, "demo")
        with (
            servers.jobsvc(scratch / "jobs", scratch, "--watch", "poll") as server,
            browser.running() as chromium,
            browser.signed_in(chromium, server.address, token) as context,
        ):
            page = context.new_page()
            show_jobs(page)
            save(page.screenshot(), DOCS / "page-jobs.png")
            show_film(page)
            save(page.screenshot(), DOCS / "page-job.png")


def show_jobs(page: Page) -> None:
    """Show the list, in the light scheme."""
    page.set_viewport_size({"width": 1180, "height": 560})
    page.goto("./")
    page.get_by_role("link", name=FILM_JOB).wait_for()


def show_film(page: Page) -> None:
    """Show a completed job with its film and digest, in the dark scheme."""
    page.set_viewport_size({"width": 1180, "height": 720})
    page.emulate_media(color_scheme="dark")
    page.goto(f"?job={FILM_JOB}")
    page.get_by_role("button", name="SHA-256").click()
    page.get_by_text(re.compile("[0-9a-f]{64}")).wait_for()
    page.locator("video").evaluate(SEEK)


def write_jobs(root: Path) -> None:
    """Write two dozen jobs of the last hours, and one with a film."""
    draw = random.Random(20)  # noqa: S311 - no secret
    for number, status in enumerate(STATES):
        created = timedelta(minutes=4 + 9 * number + draw.randrange(6))
        put(root / f"{draw.choice(SHOTS)}-v{40 - number:03d}", record(draw, status, created))
    completed = record(draw, "completed", timedelta(minutes=41))
    film = {"outputPath": "output/opening-title.mp4", "framesDone": 100, "framesTotal": 100}
    put(root / FILM_JOB, completed | film)
    shutil.copytree(FILMS, root / FILM_JOB / "output")


def record(draw: random.Random, status: str, created: timedelta) -> dict[str, object]:
    """Return a record of a job in a state, created so long ago."""
    total = draw.choice([120, 240, 480])
    done = {"queued": 0, "completed": total}.get(status, draw.randrange(total // 5, total))
    document: dict[str, object] = {
        "status": status,
        "owner": "demo",
        "projectPath": "projects/aurora/opening-title.blend",
        "createdAt": ago(created),
        "updatedAt": ago(timedelta(seconds=draw.randrange(2, 40))),
        "framesDone": done,
        "framesTotal": total,
        "metadata": {"show": "aurora", "worker": f"render-{draw.randrange(1, 12):02d}", "fps": 25},
    }
    if status != "queued":
        document["startedAt"] = ago(created - timedelta(minutes=1))
    if status == "rendering":
        remaining = created * ((total - done) / done)
        document |= {"phase": draw.choice(PHASES), "estimatedCompletionAt": ago(-remaining)}
    if status in {"completed", "failed", "canceled"}:
        document["completedAt"] = ago(created * 0.6)
    if status == "failed":
        document["error"] = draw.choice(ERRORS)
    return document


def ago(age: timedelta) -> str:
    """Return the time so long ago, in RFC 3339."""
    return (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:%SZ")


def put(folder: Path, document: dict[str, object]) -> None:
    """Write a job."""
    folder.mkdir(parents=True)
    (folder / "status.json").write_bytes(orjson.dumps(document))


def save(png: bytes, path: Path) -> None:
    """Write a picture with a palette, which is a third of the size."""
    palette = f"split[a][b];[a]palettegen=max_colors={COLORS}[p];[b][p]paletteuse=dither=none"
    command = ("ffmpeg", "-y", "-loglevel", "error", "-i", "-", "-vf", palette, "-pred", "mixed", str(path))
    subprocess.run(command, input=png, check=True)  # noqa: S603 - the programs of the one who calls this


if __name__ == "__main__":
    main()
