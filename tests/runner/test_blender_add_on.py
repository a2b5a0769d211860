"""Renders of Blender and bpy with unusual names of files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.conftest import Serve
from tests.programs.external_programs import needs
from tests.runner.conftest import BPY_PYTHON

ENABLE: Final = """
import bpy, addon_utils
bpy.ops.wm.read_factory_settings()
addon_utils.enable("jobsvc_blender")
"""
SCENE: Final = """
import bpy, os
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.cycles.samples = 1
scene.cycles.use_denoising = False
scene.render.resolution_x = scene.render.resolution_y = 16
scene.frame_end = 2
scene.render.filepath = "//own/"
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
