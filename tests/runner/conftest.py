"""The add-on of Blender, installed as its page says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
ADD_ON: Final = ROOT / "docs" / "integrations" / "blender" / "jobsvc_blender.py"
BPY_PYTHON: Final = os.environ.get("JOBSVC_TEST_BPY", "")
"""A Python that has bpy: an absolute path."""


def scene(*, samples: int, size: int, frames: int) -> str:
    """Return a script that sets up the scene of Blender: `frames` images of `size` by `size` pixels."""
    return f"""
import bpy
scene = bpy.context.scene
scene.render.engine = "CYCLES"
scene.cycles.samples = {samples}
scene.cycles.use_denoising = False
scene.render.resolution_x = scene.render.resolution_y = {size}
scene.frame_end = {frames}
"""


@pytest.fixture
def add_on(tmp_path: Path, jobs_root: Path) -> dict[str, str]:
    """Install the add-on as its page says. Returns the environment for Blender."""
    folder = tmp_path / "scripts" / "addons"
    folder.mkdir(parents=True)
    shutil.copy(ADD_ON, folder)
    shutil.copy(ROOT / "jobsvc" / "farm.py", folder / "jobsvc_farm.py")
    return {
        "BLENDER_USER_SCRIPTS": str(folder.parent),
        "JOBSVC_JOBS_ROOT": str(jobs_root),
        "JOBSVC_OWNER": "anna",
        "JOBSVC_JOB_ID": "title",
    }
