"""Simulate a render farm: render one job with ffmpeg and write its directory with jobsvc.farm.

Blocking code; runs in its own thread.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Final

from jobsvc.domain.job import Status
from jobsvc.domain.timestamp import format_time
from jobsvc.farm import Job, JobError
from jobsvc.storage.layout import DEFAULT_LOG

OnState = Callable[[Status, int, int], None]
"""Called with the status, the finished frames and the total frames after each change of the record."""

FPS: Final = 25
QUEUED_S: Final = 4.0
"""Seconds that the job remains queued, so that a user can see this state."""

_ENCODERS: Final = ("libx264", "libopenh264", "mpeg4")
_FILTER: Final = (
    "hue=s=0,curves=r='0/0.02 0.35/0.10 0.6/0.85 1/1'"
    ":g='0/0.03 0.35/0.30 0.65/0.62 1/0.97':b='0/0.10 0.35/0.50 0.6/0.40 1/0.85'"
)
"""Colours the grey fractal from night blue to gold."""


def find_ffmpeg() -> str | None:
    """Return the path of an ffmpeg: from PATH, else from the `demo` extra; None if there is neither."""
    path = shutil.which("ffmpeg")
    if path is not None:
        return str(Path(path).absolute())
    try:
        import imageio_ffmpeg  # noqa: PLC0415 - an optional dependency

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


class DemoFarm:
    """Render one job, from queued to a final status."""

    _job: Job
    """Created by queue()."""

    def __init__(self, folder: Path, ffmpeg: str, *, owner: str, frames: int, on_state: OnState) -> None:
        """Prepare a job in `folder`, which queue() creates; the name of the directory is the job id."""
        self._folder = folder
        self._ffmpeg = ffmpeg
        self._owner = owner
        self._frames = frames
        self._frames_done = 0
        self._on_state = on_state
        self._stopping = Event()
        self._process: subprocess.Popen[str] | None = None
        self._output = folder / f"output/{folder.name}.mp4"
        self._part = self._output.with_name(f".{folder.name}.part")

    def queue(self) -> None:
        """Create the job."""
        self._job = Job.create(
            self._folder.parent,
            owner=self._owner,
            job_id=self._folder.name,
            project="projects/demo/seahorse-valley.blend",
            output=self._output.relative_to(self._folder).as_posix(),
            frames=self._frames,
        )
        self._show()

    def run(self, wait: float = QUEUED_S) -> Status:
        """Render the queued job after `wait` seconds; return the final status, CANCELED after stop()."""
        if self._stopping.wait(wait):
            self._job.cancel()
        else:
            self._render()
        self._show()
        return Status(self._job.status)

    def stop(self) -> None:
        """Cancel the render soon. Can be called from any thread."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()

    def _render(self) -> None:
        self._job.start()
        self._progress(0, "starting")
        try:
            result = self._run_ffmpeg()
        except OSError as exc:
            self._job.fail(f"{self._ffmpeg}: {exc.strerror}")
            return
        if self._stopping.is_set():
            self._part.unlink(missing_ok=True)
            self._job.cancel()
        elif result != 0:
            self._part.unlink(missing_ok=True)
            self._job.fail(f"ffmpeg exited with code {result}; see the log")
        else:
            self._progress(self._frames, "publishing")
            with suppress(JobError):  # then it has failed, and says why
                self._publish()

    def _run_ffmpeg(self) -> int:
        """Run ffmpeg until it exits and return its exit code."""
        command = _command(self._ffmpeg, self._frames, f"{self._output.parent.name}/{self._part.name}")
        self._log(f"start: {' '.join(command)}")
        with (
            (self._folder / DEFAULT_LOG).open("ab") as log,
            # A new session: Ctrl-C must reach only this process, which then terminates ffmpeg.
            subprocess.Popen(  # noqa: S603 - fixed list of arguments, no shell
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            ) as process,
        ):
            self._follow(process)
        return process.returncode

    def _follow(self, process: subprocess.Popen[str]) -> None:
        """Update the record from ffmpeg's progress reports until ffmpeg exits or stop() is called."""
        self._process = process
        for frame in _frames_done(process.stdout or ()):
            if self._stopping.is_set():
                process.terminate()
                return
            self._progress(frame, "rendering")
            self._log(f"frame {self._frames_done} of {self._frames}")

    def _progress(self, frame: int, phase: str) -> None:
        self._frames_done = min(max(frame, self._frames_done), self._frames)
        self._job.progress(frames=(self._frames_done, self._frames), phase=phase)
        self._show()

    def _publish(self) -> None:
        """Rename the finished file to its final name, and complete the job."""
        if self._part.exists():
            self._part.rename(self._output)
        self._log(f"completed: {self._output.name}")
        self._job.complete()

    def _log(self, line: str) -> None:
        self._job.log(f"{format_time(time.time_ns() // 1000)} farm: {line}")

    def _show(self) -> None:
        self._on_state(Status(self._job.status), self._frames_done, self._frames)


def _command(ffmpeg: str, frames: int, output: str) -> list[str]:
    """Return an ffmpeg command that renders in real time (-re) and reports progress four times a second."""
    source = (
        f"mandelbrot=s=640x360:rate={FPS}:start_scale=1.4:end_scale=0.0004:end_pts={frames}:maxiter=600"
        ":start_x=-0.743643887037158704752191506114774:start_y=-0.131825904205311970493132056385139"
        ":inner=black:outer=normalized_iteration_count"
    )
    arguments = [ffmpeg, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "warning", "-y"]
    arguments += ["-progress", "pipe:1", "-stats_period", "0.25"]
    arguments += ["-re", "-f", "lavfi", "-i", source, "-frames:v", str(frames), "-vf", _FILTER]
    arguments += ["-c:v", _encoder(ffmpeg), "-b:v", "1M", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    return [*arguments, "-f", "mp4", output]


def _encoder(ffmpeg: str) -> str:
    """Return the best encoder that this ffmpeg has; some distributions do not include H.264."""
    encoders = subprocess.run(  # noqa: S603 - as above
        [ffmpeg, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False
    ).stdout.split()
    return next((name for name in _ENCODERS if name in encoders), _ENCODERS[-1])


def _frames_done(lines: Iterable[str]) -> Iterator[int]:
    """Yield the frame number of each `-progress` report.

    A report consists of key=value lines and ends with progress=continue or progress=end.
    """
    frame = 0
    for line in lines:
        key, _, value = line.partition("=")
        if key == "frame" and value.strip().isdecimal():
            frame = int(value)
        elif key == "progress":
            yield frame
