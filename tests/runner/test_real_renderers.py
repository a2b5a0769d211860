"""Real renderers, from queued to the verified download: progress rises, and the outputs are listed.

Blender and bpy are large: `make test-renderers` installs them, and other runs skip these tests.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import Serve
from tests.programs.external_programs import needs
from tests.programs.service_runner import Service
from tests.runner.conftest import BPY_PYTHON, scene

ROOT: Final = Path(__file__).parents[2]
OPENJD_TEMPLATE: Final = ROOT / "docs" / "integrations" / "openjd" / "render.yaml"
SCENE: Final = scene(samples=64, size=160, frames=4)
STILL: Final = """
import bpy
scene = bpy.context.scene
scene.cycles.samples = 1
scene.cycles.use_denoising = False
scene.render.resolution_x = scene.render.resolution_y = 32
"""
POV_SCENE: Final = """
camera { location <0, 1, -4> look_at 0 }
light_source { <5, 5, -5> color rgb 1 }
sphere { <sin(clock * 6), 0, 0>, 1 pigment { color rgb <1, 0.5, 0> } }
"""


@asynccontextmanager
async def rendering(command: Sequence[object], **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command, which has to succeed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = asyncio.create_task(process.communicate())
    yield process
    text, _ = await output
    assert process.returncode == 0, text.decode()


async def followed(service: Service, process: asyncio.subprocess.Process) -> list[dict[str, Any]]:
    """Poll the job that a process renders until it has ended. Returns each different state."""
    states: list[dict[str, Any]] = []
    async with asyncio.timeout(40):
        while not states or not states[-1]["done"]:
            assert process.returncode in (None, 0)
            answer = await service.get("/api/jobs/title")
            if answer.status == 200 and answer.json() not in states:
                states.append(answer.json())
            await asyncio.sleep(0.02)
    return states


async def check(service: Service, states: list[dict[str, Any]], *, is_slow: bool = True) -> None:
    """Check that progress rose, in steps if the render is slow, and that the outputs can be downloaded."""
    final = states[-1]
    progress = [state["progress"] for state in states]
    assert final["status"] == "completed", final
    assert progress == sorted(progress)
    assert not is_slow or any(0 < value < 100 for value in progress), progress
    assert final["outputs"]
    files = await service.get(f"/api/jobs/{final['id']}/files")
    for file in files.json()["files"]:
        download = await service.get(file["downloadUrl"])
        assert download.status == 200
        assert len(download.body) == file["size"] > 0


def jobsvc_run(root: Path, *words: object) -> list[object]:
    options = ["--jobs-root", root, "--owner", "anna", "--id", "title"]
    return [sys.executable, "-m", "jobsvc", "run", *options, *words]


@pytest.fixture
async def service(serve: Serve) -> Service:
    return await serve()


@needs("ffmpeg")
async def test_ffmpeg(service: Service, jobs_root: Path) -> None:
    source = ["-re", "-f", "lavfi", "-i", "testsrc2=s=160x90:r=25:d=2"]
    command = jobsvc_run(jobs_root, "--frames", "1-50", "--output", "output/title.mp4")
    async with rendering([*command, "--", "ffmpeg", "-stats_period", "0.2", *source, "{output}"]) as process:
        states = await followed(service, process)
    await check(service, states)
    film = await asyncio.to_thread((jobs_root / "title" / "output" / "title.mp4").read_bytes)
    assert hashlib.sha256((await service.download("title")).body).digest() == hashlib.sha256(film).digest()


@needs("povray")
async def test_povray(service: Service, jobs_root: Path, tmp_path: Path) -> None:
    scene = tmp_path / "title.pov"
    await asyncio.to_thread(scene.write_text, POV_SCENE)
    command = jobsvc_run(jobs_root, "--frames", "1-6", "--output", "output/title#.png")
    words = ["povray", f"+I{scene}", "+O{job}/output/title.png", "+W320", "+H240", "+KFF6", "-D"]
    async with rendering([*command, "--", *words]) as process:
        states = await followed(service, process)
    await check(service, states)
    assert states[-1]["framesDone"] == 6


@needs("ffmpeg")
async def test_openjd(service: Service, jobs_root: Path, tmp_path: Path) -> None:
    images = tmp_path / "title.%04d.png"
    async with rendering(["ffmpeg", "-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=3", images]):
        pass
    scripts = Path(sys.executable).parent
    values = {"JobId": "title", "JobsRoot": jobs_root, "Owner": "anna", "Images": images}
    parameters = [word for name, value in values.items() for word in ("-p", f"{name}={value}")]
    command = [scripts / "openjd", "run", OPENJD_TEMPLATE, *parameters]
    async with rendering(command, PATH=f"{scripts}:{os.environ['PATH']}") as process:
        states = await followed(service, process)
    await check(service, states, is_slow=False)


@needs("blender")
async def test_blender_by_its_output(service: Service, jobs_root: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene.py"
    await asyncio.to_thread(scene.write_text, SCENE)
    command = jobsvc_run(jobs_root, "--output", "output/title.####.png")
    frames = ["-s", "1", "-e", "4", "-a"]
    blender = ["blender", "-b", "--factory-startup", "--python", scene, "-o", "{output}", *frames]
    async with rendering([*command, "--", *blender]) as process:
        states = await followed(service, process)
    await check(service, states)
    assert states[-1]["framesDone"] == 4


@needs("blender")
async def test_blender_by_the_add_on(service: Service, add_on: dict[str, str], tmp_path: Path) -> None:
    scene = tmp_path / "scene.py"
    await asyncio.to_thread(scene.write_text, SCENE)
    words = ["--addons", "jobsvc_blender", "--python", scene, "-a"]
    async with rendering(["blender", "-b", "--factory-startup", *words], **add_on) as process:
        states = await followed(service, process)
    await check(service, states)
    assert states[-1]["framesDone"] == 4


@needs("blender")
async def test_add_on_says_which_variables_are_missing(add_on: dict[str, str], tmp_path: Path) -> None:
    scene = tmp_path / "scene.py"
    await asyncio.to_thread(scene.write_text, SCENE.replace("samples = 64", "samples = 1"))
    words = ["--addons", "jobsvc_blender", "--python", scene, "-o", tmp_path / "own.####", "-f", "1"]
    process = await asyncio.create_subprocess_exec(
        "blender",
        *map(str, ["-b", "--factory-startup", *words]),
        env=os.environ | add_on | {"JOBSVC_OWNER": ""},
        stdout=asyncio.subprocess.PIPE,
    )
    text, _ = await process.communicate()
    assert b"not written as a job: set JOBSVC_JOBS_ROOT and JOBSVC_OWNER" in text
    assert (tmp_path / "own.0001.png").exists()


@needs("blender")
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("JOBSVC_JOBS_ROOT", "/missing", "create it, or mount the share: '/missing'"),
        ("JOBSVC_JOB_ID", "a b", "'a b' is no job id"),
    ],
)
async def test_add_on_says_in_one_line_why_there_is_no_job(
    add_on: dict[str, str], jobs_root: Path, tmp_path: Path, variable: str, value: str, message: str
) -> None:
    words = ["--addons", "jobsvc_blender", "-E", "CYCLES", "--python-expr", STILL]
    process = await asyncio.create_subprocess_exec(
        *["blender", "-b", "--factory-startup", *words, "-o", str(tmp_path / "still"), "-f", "1"],
        env=os.environ | add_on | {variable: value},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    lines = [line for line in output.decode().splitlines() if line.startswith("jobsvc: ")]
    assert len(lines) == 1
    assert lines[0].startswith("jobsvc: this render is not written as a job: ")
    assert message in lines[0]
    assert b"Traceback" not in output
    assert await asyncio.to_thread((tmp_path / "still0001.png").exists)
    assert await asyncio.to_thread(os.listdir, jobs_root) == []


@needs("blender")
async def test_add_on_leaves_a_render_of_jobsvc_run_alone(add_on: dict[str, str], jobs_root: Path) -> None:
    command = jobsvc_run(jobs_root, "--output", "output/title.####.png")
    words = ["--addons", "jobsvc_blender", "-E", "CYCLES", "--python-expr", STILL, "-f", "1"]
    async with rendering(
        [*command, "--", "blender", "-b", "--factory-startup", "-o", "{output}", *words], **add_on
    ):
        pass
    files = await asyncio.to_thread(lambda: list(jobs_root.glob("*/output/*")))
    assert files == [jobs_root / "title" / "output" / "title.0001.png"]


@pytest.mark.skipif(not BPY_PYTHON, reason="JOBSVC_TEST_BPY does not name a Python with bpy")
async def test_bpy_by_the_add_on(service: Service, add_on: dict[str, str]) -> None:
    enable = (
        "import bpy, addon_utils; bpy.ops.wm.read_factory_settings(); addon_utils.enable('jobsvc_blender')"
    )
    script = f"{enable}\n{SCENE}\nbpy.ops.render.render(animation=True)"
    async with rendering([BPY_PYTHON, "-c", script], **add_on) as process:
        states = await followed(service, process)
    await check(service, states)
    assert states[-1]["framesDone"] == 4
