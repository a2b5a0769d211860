"""Renders of Blender and bpy that are no plain animation: no file, another attempt, unusual file names."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.conftest import Serve
from tests.programs.external_programs import needs
from tests.runner.conftest import ADD_ON, BPY_PYTHON, scene

ENABLE: Final = """
import bpy, addon_utils
bpy.ops.wm.read_factory_settings()
addon_utils.enable("jobsvc_blender")
"""
SCENE: Final = f"""{scene(samples=1, size=16, frames=2)}
import os
scene.render.filepath = "//own/"
"""
SHOW_PATH: Final = 'print(f"path: {scene.render.filepath}")'
NO_FILE: Final = f"""
bpy.ops.render.render()
{SHOW_PATH}
"""
NEXT_ATTEMPT: Final = 'Job.create(root, owner="anna", job_id="title")'
CANCEL: Final = 'Job.open(root, "title").cancel()'
ENDED_ELSEWHERE: Final = f"""
import threading, time
from jobsvc_farm import Job
root = os.environ["JOBSVC_JOBS_ROOT"]

def end_attempt(scene, *_):
    if scene.frame_current == 2:
        ACTION
    while scene.frame_current == 3 and "jobsvc-farm" in [thread.name for thread in threading.enumerate()]:
        time.sleep(0.01)  # until the thread that writes the job has noticed

scene.frame_end = 6
bpy.app.handlers.render_pre.append(end_attempt)
bpy.ops.render.render(animation=True)
{SHOW_PATH}
"""
REGISTERED_AGAIN: Final = f"""
import runpy, sys
names = [name for name in dir(bpy.app.handlers) if name.startswith("render_")]
del os.environ["JOBSVC_JOB_ID"]
sys.modules["jobsvc_blender"].register()
again = runpy.run_path({str(ADD_ON)!r})
again["register"]()
bpy.ops.render.render(animation=True)
{SHOW_PATH}
again["unregister"]()
print("handlers:", sum(len(getattr(bpy.app.handlers, name)) for name in names))
"""
NO_START: Final = """
os.environ["JOBSVC_JOB_ID"] = "small"
render = scene.render
if hasattr(render.image_settings, "media_type"):
    render.image_settings.media_type = "VIDEO"  # Blender 5
render.image_settings.file_format = "FFMPEG"
render.resolution_x = 15
try:
    bpy.ops.render.render(animation=True)
except RuntimeError as error:
    print(error)
"""
NEXT_START: Final = f"""
os.environ["JOBSVC_JOB_ID"] = "title"
render.resolution_x = 16
bpy.ops.render.render(animation=True)
{SHOW_PATH}
"""
DISABLED: Final = f"""
import sys
bpy.app.handlers.render_pre.append(lambda *_: sys.modules["jobsvc_blender"].unregister())
bpy.ops.render.render(animation=True)
{SHOW_PATH}
"""
FILE_NAMES: Final = """
import tempfile, jobsvc_farm
jobsvc_farm.STABLE_S = 0.05
folder = tempfile.mkdtemp()
render, image = scene.render, scene.render.image_settings

def run(job_id, **still):
    os.environ["JOBSVC_JOB_ID"] = job_id
    bpy.ops.render.render(**still or {"animation": True})

for job_id, name in {"hash": "a#b##", "at": "a@b", "percent": "a%04d", "dollar": "$F4", "braces": "{a}",
                     "backslash": "a\\\\b"}.items():
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, name + ".blend"))
    run(job_id)
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, ".title.blend"))
run("still", write_still=True)
render.use_file_extension = False
run("bare")
render.use_file_extension = True
render.use_multiview = True
run("stereo")
image.views_format = "STEREO_3D"
run("side-by-side")
image.views_format = "INDIVIDUAL"
if hasattr(image, "media_type"):
    image.media_type = "VIDEO"  # Blender 5
image.file_format = "FFMPEG"
run("films")
"""
NAMES_OF_FILES: Final = {
    "hash": ("sequence", ["a_b__.0001.png", "a_b__.0002.png"]),
    "at": ("sequence", ["a_b.0001.png", "a_b.0002.png"]),
    "percent": ("sequence", ["a_04d.0001.png", "a_04d.0002.png"]),
    "dollar": ("sequence", ["_F4.0001.png", "_F4.0002.png"]),
    "braces": ("sequence", ["_a_.0001.png", "_a_.0002.png"]),
    "backslash": ("sequence", ["a_b.0001.png", "a_b.0002.png"]),
    "still": ("file", ["_title.####.png"]),  # Blender replaces #### only in animations
    "bare": ("sequence", ["_title.0001", "_title.0002"]),
    "stereo": (
        "directory",
        ["_title.0001_L.png", "_title.0001_R.png", "_title.0002_L.png", "_title.0002_R.png"],
    ),
    "side-by-side": ("sequence", ["_title.0001.png", "_title.0002.png"]),
    "films": ("file", ["_title0001-0002_L.mkv", "_title0001-0002_R.mkv"]),
}


class Rendered(NamedTuple):
    """What a Blender has done."""

    program: str
    exit_code: int
    output: list[str]


Render = Callable[[str], Awaitable[Rendered]]


def record_of(jobs_root: Path, job_id: str = "title") -> dict[str, Any]:
    record: dict[str, Any] = json.loads((jobs_root / job_id / "status.json").read_bytes())
    return record


@pytest.fixture(
    params=[
        pytest.param("blender", marks=needs("blender")),
        pytest.param("bpy", marks=pytest.mark.skipif(not BPY_PYTHON, reason="JOBSVC_TEST_BPY is not set")),
    ]
)
def render(request: pytest.FixtureRequest, add_on: dict[str, str], tmp_path: Path) -> Render:
    """Return a function that runs a script in Blender, with the add-on and a scene."""

    async def run(script: str) -> Rendered:
        words = ["blender", "-b", "--factory-startup", "--addons", "jobsvc_blender", "--python-expr"]
        script = SCENE + script
        if request.param == "bpy":
            words, script = [BPY_PYTHON, "-c"], ENABLE + script
        process = await asyncio.create_subprocess_exec(
            *words,
            script,
            env=os.environ | add_on,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return Rendered(request.param, process.returncode, output.decode().splitlines())

    return run


async def test_render_that_writes_no_file_is_canceled_with_a_reason(render: Render, jobs_root: Path) -> None:
    _, exit_code, output = await render(NO_FILE)
    assert exit_code == 0, output
    assert "path: //own/" in output
    record = await asyncio.to_thread(record_of, jobs_root)
    assert record["status"] == "canceled"
    assert "error" not in record
    reason = "Blender has rendered without writing a file"
    assert [line for line in output if line.startswith(f"jobsvc: job title is canceled: {reason}")]
    assert reason in await asyncio.to_thread((jobs_root / "title" / "render.log").read_text)


@pytest.mark.parametrize(
    ("action", "message", "status", "attempt"),
    [
        pytest.param(NEXT_ATTEMPT, "attempt 2 has begun", "queued", 2, id="next attempt"),
        pytest.param(CANCEL, "another program has ended title", "canceled", 1, id="canceled"),
    ],
)
async def test_render_stops_when_its_attempt_is_over(
    render: Render, jobs_root: Path, tmp_path: Path, action: str, message: str, status: str, attempt: int
) -> None:
    program, exit_code, output = await render(ENDED_ELSEWHERE.replace("ACTION", action))
    assert "path: //own/" in output
    assert any(line.startswith("jobsvc: job title: ") and message in line for line in output)
    record = await asyncio.to_thread(record_of, jobs_root)
    assert (record["status"], record["attempt"]) == (status, attempt)
    is_stopped = program == "blender"  # Python cannot stop bpy.
    assert exit_code == (1 if is_stopped else 0)
    assert any(line.startswith("jobsvc: stop this render: ") for line in output) != is_stopped
    # The end is noticed in frame 2 or 3.
    assert not await asyncio.to_thread((jobs_root / "title" / "output" / "render.0004.png").exists)
    assert await asyncio.to_thread((tmp_path / "own" / "0004.png").exists) != is_stopped


async def test_add_on_that_is_registered_again_writes_one_job(render: Render, jobs_root: Path) -> None:
    _, exit_code, output = await render(REGISTERED_AGAIN)
    assert exit_code == 0, output
    assert "path: //own/" in output
    jobs = await asyncio.to_thread(os.listdir, jobs_root)
    assert len(jobs) == 1
    record = await asyncio.to_thread(record_of, jobs_root, jobs[0])
    assert record["status"] == "completed"
    assert "handlers: 0" in output


@pytest.mark.parametrize("next_start", ["", NEXT_START], ids=["at exit", "at the next render"])
async def test_render_that_cannot_start_fails(render: Render, jobs_root: Path, next_start: str) -> None:
    _, exit_code, output = await render(NO_START + next_start)
    assert exit_code == 0, output
    record = await asyncio.to_thread(record_of, jobs_root, "small")
    assert record["status"] == "failed"
    assert record["error"].startswith("Blender has not ended this render (0 frames)")
    if next_start:
        assert "path: //own/" in output
        assert (await asyncio.to_thread(record_of, jobs_root))["status"] == "completed"


async def test_render_fails_when_the_add_on_is_disabled(render: Render, jobs_root: Path) -> None:
    _, exit_code, output = await render(DISABLED)
    assert exit_code == 0, output
    assert "path: //own/" in output
    record = await asyncio.to_thread(record_of, jobs_root)
    assert record["status"] == "failed"
    assert record["error"].startswith("Blender has not ended this render (0 frames)")


async def test_outputs_have_the_names_that_blender_gives_them(
    render: Render, jobs_root: Path, serve: Serve
) -> None:
    _, exit_code, output = await render(FILE_NAMES)
    assert exit_code == 0, output
    service = await serve()
    found = {}
    for job_id in NAMES_OF_FILES:
        job = (await service.get(f"/api/jobs/{job_id}")).json()
        files = (await service.get(f"/api/jobs/{job_id}/files")).json()["files"]
        assert job["status"] == "completed", (job, output)
        found[job_id] = job["outputs"][0]["kind"], [file["path"] for file in files]
    assert found == NAMES_OF_FILES
