"""Simulate a render farm: render one job with ffmpeg and write its directory as a farm should.

The record is replaced atomically and never returns to an earlier state, the log is only appended to, and the
output is in place before the record says completed. Blocking code; runs in its own thread.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, Final

import orjson

from jobsvc.domain.job import Status
from jobsvc.domain.timestamp import format_time
from jobsvc.storage.files.atomic_write import write_atomically
from jobsvc.storage.layout import DEFAULT_LOG, STATUS_FILE

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

    def __init__(self, folder: Path, ffmpeg: str, *, owner: str, frames: int, on_state: OnState) -> None:
        """Prepare a job in `folder`, which queue() creates; the name of the directory is the job id."""
        self._folder = folder
        self._ffmpeg = ffmpeg
        self._frames = frames
        self._on_state = on_state
        self._stopping = Event()
        self._process: subprocess.Popen[str] | None = None
        output = f"output/{folder.name}.mp4"
        self._output = folder / output
        self._part = self._output.with_name(f".{folder.name}.part")
        self._record: dict[str, Any] = {
            "id": folder.name,
            "status": Status.QUEUED,
            "owner": owner,
            "progress": 0,
            "projectPath": "projects/demo/seahorse-valley.blend",
            "outputPath": output,
            "createdAt": _now(),
            "framesDone": 0,
            "framesTotal": frames,
            "attempt": 1,
        }

    def queue(self) -> None:
        """Create the job directory under a temporary name and rename it, so that it appears complete."""
        temporary = self._folder.with_name(f".{self._folder.name}.new")
        (temporary / "output").mkdir(parents=True)
        write_atomically(temporary / STATUS_FILE, orjson.dumps(self._record | {"updatedAt": _now()}))
        temporary.rename(self._folder)
        self._on_state(Status.QUEUED, 0, self._frames)

    def run(self, wait: float = QUEUED_S) -> Status:
        """Render the queued job after `wait` seconds; return the final status, CANCELED after stop()."""
        if self._stopping.wait(wait):
            return self._end(Status.CANCELED)
        try:
            result = self._render()
        except OSError as exc:
            return self._end(Status.FAILED, error=f"{self._ffmpeg}: {exc.strerror}")
        if self._stopping.is_set():
            return self._end(Status.CANCELED)
        if result != 0:
            return self._end(Status.FAILED, error=f"ffmpeg exited with code {result}; see the log")
        self._publish()
        return self._end(Status.COMPLETED, progress=100, framesDone=self._frames)

    def stop(self) -> None:
        """Cancel the render soon. Can be called from any thread."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()

    def _render(self) -> int:
        """Run ffmpeg until it exits and return its exit code."""
        self._replace(status=Status.RENDERING, phase="starting", startedAt=_now())
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
            done = min(max(frame, self._record["framesDone"]), self._frames)
            # 100 % is reported only once the file is in place.
            self._replace(phase="rendering", framesDone=done, progress=min(99, 100 * done // self._frames))
            self._log(f"frame {done} of {self._frames}")

    def _publish(self) -> None:
        """Sync the finished file to disk and rename it to its final name."""
        self._replace(phase="publishing", framesDone=self._frames, progress=99)
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.rename(self._output)

    def _end(self, status: Status, **members: object) -> Status:
        self._part.unlink(missing_ok=True)
        self._log(f"{status}: {members.get('error', self._record['outputPath'])}")
        self._record.pop("phase", None)
        self._replace(status=status, completedAt=_now(), **members)
        return status

    def _replace(self, **members: object) -> None:
        self._record |= members | {"updatedAt": _now()}
        write_atomically(self._folder / STATUS_FILE, orjson.dumps(self._record))
        self._on_state(self._record["status"], self._record["framesDone"], self._frames)

    def _log(self, line: str) -> None:
        with (self._folder / DEFAULT_LOG).open("a", encoding="utf-8") as log:
            log.write(f"{_now()} farm: {line}\n")


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


def _now() -> str:
    return format_time(time.time_ns() // 1000)
