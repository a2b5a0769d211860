"""Run a renderer and write its job: log, progress, outputs and the final state."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobsvc.domain.outputs import sequence_pattern
from jobsvc.farm import Job, JobError
from jobsvc.runner.command import Command, Line
from jobsvc.runner.event import Event, Parse
from jobsvc.runner.frame_range import FrameRange
from jobsvc.runner.outputs import attempt_directory, count_files, group_outputs, paths_in_job, publish
from jobsvc.runner.progress_tracker import ProgressTracker

REPLACED_LINE_INTERVAL_S: Final = 10.0
"""How often a progress line that the next one replaces is written to the log."""
COUNT_INTERVAL_S: Final = 2.0
"""How often the files on disk are counted."""
MAX_PARSED: Final = 8192
"""Characters of a line that are searched for progress."""
OUTPUT_WORD: Final = "{output}"
JOB_WORD: Final = "{job}"
NOT_FOUND: Final = 127
NOT_STARTED: Final = 126
"""Exit codes of a shell for a command that it cannot start."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to render."""

    command: Sequence[str]
    """Program and arguments; {output} and {job} in them are replaced."""
    parse: Parse
    output: str | None = None
    """Path of the main output in the job's directory."""
    frames: FrameRange | None = None
    keep_outputs: bool = False
    """Whether to go on with the files of the last attempt."""


class Render:
    """One attempt of a job, rendered by a command. Main thread only."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self._job = job
        self._plan = plan
        self._folder = attempt_directory(job.path, job.attempt, keep=plan.keep_outputs)
        self._tracker = ProgressTracker(plan.frames)
        words = {JOB_WORD: str(job.path), OUTPUT_WORD: self._prepare_output()}
        environment = {"JOBSVC_JOB_DIR": words[JOB_WORD], "JOBSVC_OUTPUT": words[OUTPUT_WORD]}
        self._command = Command([_replace(word, words) for word in plan.command], environment)
        self._logged_at = 0.0
        self._counted_at = 0.0

    def run(self) -> int:
        """Render. Returns the exit code of the command, 1 if an output is missing, 128 + N after signal N."""
        with self._job as job:
            job.log(f"$ {shlex.join(self._plan.command)}".replace("\n", "\\n"))
            try:
                code = self._command.run(self._on_line, self._on_idle)
            except OSError as error:
                problem = f"{self._plan.command[0]}: {error.strerror}"
                sys.stderr.write(f"Error: {problem}\n")
                job.fail(problem)
                return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_STARTED
            job.check()
            if self._command.canceled_by is not None:
                job.log(f"Canceled by {signal.Signals(self._command.canceled_by).name}.")
                job.cancel()
                return 128 + self._command.canceled_by
            if code != 0:
                job.fail(self._failure(code))
                return code if code > 0 else 128 - code
            self._complete()
        return 0

    def _prepare_output(self) -> str:
        """Return where the renderer writes the main output, and create the directory."""
        path = self._plan.output or ""
        whole = self._folder / path
        (whole if path.endswith("/") else whole.parent).mkdir(parents=True, exist_ok=True)
        return f"{whole}/" if path.endswith("/") else str(whole)

    def _on_line(self, line: Line) -> None:
        if not self._is_written():
            return
        event = self._plan.parse(line.text[:MAX_PARSED])
        if not line.is_replaced:
            self._job.log(line.text)
        elif time.monotonic() >= self._logged_at + REPLACED_LINE_INTERVAL_S:
            self._logged_at = time.monotonic()
            self._job.log(line.text)
        if event is not None:
            self._tracker.add(event)
            self._tell_progress()

    def _on_idle(self) -> None:
        """Count the frames on disk. The newest may be incomplete."""
        if (
            not self._is_written()
            or self._plan.frames is None
            or time.monotonic() < self._counted_at + COUNT_INTERVAL_S
        ):
            return
        self._counted_at = time.monotonic()
        if (files := count_files(self._folder)) > 1:
            self._tracker.add(Event(done=files - 1))
            self._tell_progress()

    def _is_written(self) -> bool:
        """Return whether the job is still this one's to write. Otherwise the command is ended, too."""
        try:
            self._job.check()
        except JobError:
            if self._command.canceled_by is None:
                self._command.cancel(signal.SIGTERM)
            return False
        return True

    def _tell_progress(self) -> None:
        tracker = self._tracker
        frames = None if tracker.frames_done is None else (tracker.frames_done, tracker.frames_total)
        self._job.progress(tracker.percent, phase=tracker.phase, frames=frames)

    def _failure(self, code: int) -> str:
        """Return one sentence about a command that has failed."""
        program = Path(self._plan.command[0]).name
        if code < 0:
            what = f"{program} was ended by {_signal_name(-code)}"
        else:
            what = f"{program} exited with code {code}"
        return f"{what}: {self._tracker.error}" if self._tracker.error else what

    def _complete(self) -> None:
        job, plan = self._job, self._plan
        reported = [] if plan.output else paths_in_job(self._tracker.outputs, self._folder, job.path)
        written = publish(self._folder, job.path)
        self._tracker.finish()
        if self._tracker.frames_total is not None:
            job.progress(frames=(self._tracker.frames_total, self._tracker.frames_total))
        if plan.output is None:
            for number, (name, path) in enumerate(group_outputs(reported or written)):
                job.add_output(name, path, role="data" if number else "main")
        elif plan.frames is not None and plan.frames.is_contiguous and _is_sequence(plan.output):
            frames = f"{plan.frames.first}-{plan.frames.last}"
            job.add_output("main", plan.output, role="main", frames=frames)
        job.complete(hint=_hint(written, self._tracker.error))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # a real-time signal


def _replace(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


def _is_sequence(path: str) -> bool:
    return sequence_pattern(path.rpartition("/")[2]) is not None


def _hint(written: Sequence[str], error: str | None) -> str:
    """Return what helps to find out why an output is missing."""
    if written:
        return f"the renderer wrote {', '.join(written[:3])}"
    return f"the renderer printed: {error}" if error else f"the renderer wrote nothing to {OUTPUT_WORD}"
