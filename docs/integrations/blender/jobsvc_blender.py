"""Blender add-on: each render is a job of jobsvc, with progress, frames and outputs.

It needs jobsvc/farm.py as jobsvc_farm.py beside it, and the environment variables JOBSVC_JOBS_ROOT and
JOBSVC_OWNER; JOBSVC_JOB_ID names the job. Without the first two, it says so and Blender renders as usual.
Within `jobsvc run`, which writes a job itself, it does nothing. Tried with Blender 3.4 and bpy 5.0.
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import traceback
from pathlib import Path

import bpy
from bpy.app.handlers import persistent

try:
    from jobsvc_farm import Job, JobError
except ImportError:
    from jobsvc.farm import Job, JobError

bl_info = {
    "name": "jobsvc",
    "description": "Writes each render as a job of jobsvc",
    "blender": (3, 0, 0),
    "category": "Render",
}


NOT_WRITTEN = "Blender has rendered without writing a file: use Render Animation, or write_still in a script"
"""Why a job is canceled after F12, which only shows the image."""


class Render:
    """The render that is running, if any."""

    job: Job | None = None
    own_path = ""
    """The output path of the scene before the render."""
    job_path = ""
    """The output path during the render."""
    frames: set[int] = set()
    """Numbers of the frames that are written."""


def _frame_count(scene: bpy.types.Scene) -> int:
    return len(range(scene.frame_start, scene.frame_end + 1, scene.frame_step))


def _report(what: str, error: Exception) -> None:
    """Print an error instead of raising it, so that the render goes on. No more is written of the job."""
    _restore()
    if isinstance(error, (JobError, OSError)):
        print(f"jobsvc: {what}: {error}")
    else:
        print(f"jobsvc: {what}:")
        traceback.print_exc()


def _with_job(handler):
    """Call a handler only if the render has a job, and pass the job on."""

    @persistent
    def call(scene, *_):
        job = Render.job
        if job is None:
            return
        try:
            handler(scene, job)
        except Exception as error:
            is_rendering = Render.job is not None
            _report(f"job {job.id}", error)
            if is_rendering and isinstance(error, JobError):
                _stop()

    return call


def _stop():
    """Stop the render, as `jobsvc run` does: the job has another attempt, or another program has ended it.

    Python can only do this without a window, where Blender ends a render at SIGINT.
    """
    # Python returns None for Blender's own handler. The handler of bpy raises KeyboardInterrupt instead.
    if bpy.app.background and signal.getsignal(signal.SIGINT) is None:
        print("jobsvc: Blender stops this render")
        signal.raise_signal(signal.SIGINT)
    else:
        print("jobsvc: stop this render: it has no job, and its next frames have the scene's own output path")


@persistent
def begin(scene, *_):
    """Create the job, if the environment says where and whose it is."""
    if "JOBSVC_JOB_DIR" in os.environ:
        return  # Within `jobsvc run`: its job has the output of this render.
    if not os.environ.get("JOBSVC_JOBS_ROOT") or not os.environ.get("JOBSVC_OWNER"):
        print("jobsvc: this render is not written as a job: set JOBSVC_JOBS_ROOT and JOBSVC_OWNER")
        return
    _end_unfinished()
    _restore()
    try:
        _begin(scene)
    except Exception as error:
        _report("this render is not written as a job", error)


def _begin(scene):
    """Create the job, and have Blender write into its directory."""
    name = _file_name()
    job = Job.create(
        os.environ["JOBSVC_JOBS_ROOT"],
        owner=os.environ["JOBSVC_OWNER"],
        job_id=os.environ.get("JOBSVC_JOB_ID"),
        output=_output(scene.render, name),
        project=bpy.data.filepath or None,
        metadata={"scene": scene.name, "engine": scene.render.engine, "blender": bpy.app.version_string},
    )
    (job.path / "output").mkdir(exist_ok=True)
    Render.job, Render.own_path, Render.frames = job, scene.render.filepath, set()
    Render.job_path = str(job.path / "output" / (name if scene.render.is_movie_format else f"{name}.####"))
    scene.render.filepath = Render.job_path
    job.start()
    job.log(f"Blender {bpy.app.version_string} renders {bpy.data.filepath or 'an unsaved scene'}")
    print(f"jobsvc: job {job.id}")


def _file_name():
    """Return the name of the .blend, without a leading dot and the characters of placeholders.

    Outputs have placeholders with `#`, `@`, `%` and `$`. Blender replaces `#`, takes a backslash for a slash,
    and from version 5 expects a variable within braces.
    """
    return re.sub(r"^\.|[#@%${}\\]", "_", Path(bpy.data.filepath).stem) or "render"


def _output(render, name):
    """Return the main output; None for films: their names contain the frames, and are known at the end."""
    if render.is_movie_format:
        return None
    if render.use_multiview and render.image_settings.views_format not in ("STEREO_3D", "MULTIVIEW"):
        return "output/"  # One file for each view, title.0001_L.png, so several sequences.
    return f"output/{name}.####{render.file_extension if render.use_file_extension else ''}"


@atexit.register  # bpy quits without disabling add-ons
def _end_unfinished():
    """Fail the job of a render that has no end: Blender calls no handler if it cannot start one, or quits."""
    job, Render.job = Render.job, None
    if job is None:
        return
    try:
        job.fail(f"Blender has not ended this render ({len(Render.frames)} frames): its output may say why")
    except (JobError, OSError) as error:
        print(f"jobsvc: job {job.id}: {error}")


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
    """End the job as completed if its files are there, and as canceled if the image was only shown."""
    _restore()
    if not Render.frames:
        job.log(NOT_WRITTEN)
        job.cancel()
        print(f"jobsvc: job {job.id} is canceled: {NOT_WRITTEN}")
        return
    if scene.render.is_movie_format:
        for number, film in enumerate(sorted((job.path / "output").iterdir())):
            name, role = (f"film-{number}", "data") if number else ("main", "main")
            job.add_output(name, f"output/{film.name}", role=role)
    job.complete()
    print(f"jobsvc: job {job.id} is completed")


@_with_job
def cancel(scene, job):
    """End the job: without a window nobody can cancel, so Blender has met an error."""
    _restore()
    if bpy.app.background:
        job.fail(f"Blender has stopped at frame {scene.frame_current}: its own output says why")
    else:
        job.cancel()


def _restore():
    """Give the scene its output path back, unless somebody has set another one."""
    Render.job = None
    for scene in bpy.data.scenes:
        if scene.render.filepath == Render.job_path:
            scene.render.filepath = Render.own_path


HANDLERS = {
    "render_init": begin,
    "render_pre": begin_frame,
    "render_write": end_frame,
    "render_complete": complete,
    "render_cancel": cancel,
}


def _remove_handlers():
    """Remove the handlers of this module, and of copies of it: a script that is run again is a new module."""
    for name in HANDLERS:
        handlers = getattr(bpy.app.handlers, name)
        handlers[:] = [handler for handler in handlers if not hasattr(handler, "is_of_jobsvc")]


def register():
    """Connect the handlers: Blender calls this when the add-on is enabled."""
    _remove_handlers()
    for name, handler in HANDLERS.items():
        handler.is_of_jobsvc = True
        getattr(bpy.app.handlers, name).append(handler)


def unregister():
    """Disconnect the handlers: Blender calls this when the add-on is disabled, and when it quits."""
    _remove_handlers()
    _end_unfinished()
    _restore()
