"""Blender add-on: each render is a job of jobsvc, with progress, frames and outputs.

It needs jobsvc/farm.py as jobsvc_farm.py beside it, and the environment variables JOBSVC_JOBS_ROOT and
JOBSVC_OWNER; JOBSVC_JOB_ID names the job. Without the first two, it says so and Blender renders as usual.
Tried with Blender 3.4 and bpy 5.0.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import bpy
from bpy.app.handlers import persistent

try:
    from jobsvc_farm import Job
except ImportError:
    from jobsvc.farm import Job

bl_info = {
    "name": "jobsvc",
    "description": "Writes each render as a job of jobsvc",
    "blender": (3, 0, 0),
    "category": "Render",
}


class Render:
    """The render that is running, if any."""

    job: Job | None = None
    path = ""
    """The output path of the scene before the render."""
    frames: set[int] = set()
    """Numbers of the frames that are written."""


def _frame_count(scene: bpy.types.Scene) -> int:
    return len(range(scene.frame_start, scene.frame_end + 1, scene.frame_step))


def _without_stopping_the_render(handler):
    """Report an error instead of raising it."""

    @persistent
    def call(scene, *_):
        try:
            handler(scene)
        except Exception:
            print("jobsvc: this render is not written as a job:")
            traceback.print_exc()
            Render.job = None

    return call


def _with_job(handler):
    """Call a handler only if the render has a job, and pass the job on."""

    @_without_stopping_the_render
    def call(scene):
        if Render.job is not None:
            handler(scene, Render.job)

    return call


@_without_stopping_the_render
def begin(scene):
    """Create the job, and have Blender write into its directory."""
    root, owner = os.environ.get("JOBSVC_JOBS_ROOT"), os.environ.get("JOBSVC_OWNER")
    if not root or not owner:
        print("jobsvc: this render is not written as a job: set JOBSVC_JOBS_ROOT and JOBSVC_OWNER")
        return
    name = Path(bpy.data.filepath).stem or "render"
    is_movie = scene.render.is_movie_format
    output = None if is_movie else f"output/{name}.####{scene.render.file_extension}"
    job = Job.create(
        root,
        owner=owner,
        job_id=os.environ.get("JOBSVC_JOB_ID"),
        output=output,
        project=bpy.data.filepath or None,
        metadata={"scene": scene.name, "engine": scene.render.engine, "blender": bpy.app.version_string},
    )
    Render.job, Render.path, Render.frames = job, scene.render.filepath, set()
    (job.path / "output").mkdir(exist_ok=True)
    scene.render.filepath = str(job.path / "output" / (name if is_movie else f"{name}.####"))
    job.start()
    job.log(f"Blender {bpy.app.version_string} renders {bpy.data.filepath or 'an unsaved scene'}")
    print(f"jobsvc: job {job.id}")


@_with_job
def begin_frame(scene, job):
    """Say which frame is rendered."""
    job.progress(phase=f"frame {scene.frame_current}")


@_with_job
def end_frame(scene, job):
    """Count a frame that is written."""
    Render.frames.add(scene.frame_current)
    job.progress(frames=(len(Render.frames), _frame_count(scene)))
    job.log(f"frame {scene.frame_current} is written")


@_with_job
def complete(scene, job):
    """End the job as completed, if its files are there."""
    _restore(scene)
    if scene.render.is_movie_format:
        for number, film in enumerate(sorted((job.path / "output").iterdir())):
            name, role = (f"film-{number}", "data") if number else ("main", "main")
            job.add_output(name, f"output/{film.name}", role=role)
    job.complete()


@_with_job
def cancel(scene, job):
    """End the job: without a window nobody can cancel, so Blender has met an error."""
    _restore(scene)
    if bpy.app.background:
        job.fail(f"Blender has stopped at frame {scene.frame_current}: its own output says why")
    else:
        job.cancel()


def _restore(scene):
    """Give the scene its output path back."""
    Render.job = None
    scene.render.filepath = Render.path


HANDLERS = {
    "render_init": begin,
    "render_pre": begin_frame,
    "render_write": end_frame,
    "render_complete": complete,
    "render_cancel": cancel,
}


def register():
    """Connect the handlers: Blender calls this when the add-on is enabled."""
    for name, handler in HANDLERS.items():
        getattr(bpy.app.handlers, name).append(handler)


def unregister():
    """Disconnect the handlers: Blender calls this when the add-on is disabled."""
    for name, handler in HANDLERS.items():
        getattr(bpy.app.handlers, name).remove(handler)
