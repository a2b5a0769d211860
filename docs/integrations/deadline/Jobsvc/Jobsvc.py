"""Write the jobs of Deadline as jobs of jobsvc: an event plug-in. README.md says what becomes what."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from Deadline.Events import DeadlineEventListener
from Deadline.Scripting import RepositoryUtils

sys.path.insert(0, RepositoryUtils.GetEventPluginDirectory("Jobsvc"))
from jobsvc_farm import Job, JobError  # a copy of jobsvc/farm.py, beside this file

END_STATES = ("completed", "failed", "canceled")
EVENTS = (
    "JobSubmitted", "JobStarted", "SlaveRendering", "JobRequeued", "JobResumed", "JobFinished", "JobFailed",
    "JobDeleted",
)  # fmt: skip


def GetDeadlineEventListener():  # noqa: N802 - Deadline calls it
    """Return the plug-in."""
    return JobsvcListener()


def CleanupDeadlineEventListener(listener):  # noqa: N802 - Deadline calls it
    """Release the plug-in."""
    listener.Cleanup()


class JobsvcListener(DeadlineEventListener):
    """Writes the event of a job into its directory. An error is logged, and never stops a render."""

    def __init__(self):
        super().__init__()
        for event in EVENTS:
            callbacks = getattr(self, f"On{event}Callback")
            callbacks += getattr(self, f"On{event}")
            setattr(self, f"On{event}Callback", callbacks)

    def Cleanup(self):  # noqa: N802 - as in the documentation of Deadline
        """Remove the callbacks, which would keep this object."""
        for event in EVENTS:
            delattr(self, f"On{event}Callback")

    def OnJobSubmitted(self, source):  # noqa: N802
        """Queue the job. This runs on the machine that submits it."""
        self.update(source, None)

    def OnJobStarted(self, source):  # noqa: N802
        """Begin to render."""
        self.update(source, lambda job: job.progress(), restarts=True)

    def OnSlaveRendering(self, _worker, source):  # noqa: N802
        """Write how many tasks are done, each time a Worker begins one."""
        done, total = source.JobCompletedTasks, source.JobTaskCount
        percent = min(99, 100 * done / max(total, 1))
        self.update(source, lambda job: job.progress(percent, phase=f"{done} of {total} tasks are done"))

    def OnJobRequeued(self, source):  # noqa: N802
        """Queue the next attempt of a job that had ended."""
        self.update(source, None, restarts=True)

    OnJobResumed = OnJobRequeued

    def OnJobFinished(self, source):  # noqa: N802
        """Bring the outputs into the job's directory, and complete the job."""

        def complete(job):
            add_outputs(job, list(source.JobOutputDirectories), list(source.JobOutputFileNames))
            job.complete()

        self.update(source, complete)

    def OnJobFailed(self, source):  # noqa: N802
        """End the job as failed."""
        failed, total = source.JobFailedTasks, source.JobTaskCount
        error = f"{failed} of {total} tasks have failed: the error reports of the job in Deadline say why"
        self.update(source, lambda job: job.fail(error))

    def OnJobDeleted(self, source):  # noqa: N802
        """End a job that has not ended as canceled."""
        self.update(source, lambda job: job.cancel())

    def update(self, source, change, *, restarts=False):
        """Change a job that has not ended, or its next attempt."""
        try:
            job = self.open(source)
            if restarts and job.status in END_STATES:
                job = self.create(source, restart=True)
            if change and job.status not in END_STATES:
                change(job)
        except (JobError, OSError, ValueError) as error:
            self.LogWarning(f"jobsvc: job {source.JobId} is not written: {error}")

    def open(self, source):
        """Return the job of jobsvc. It is created if the machine that submitted it could not do so."""
        root = Path(self.GetConfigEntry("JobsRoot"))
        if (root / source.JobId / "status.json").exists():
            return Job.open(root, source.JobId)
        return self.create(source)

    def create(self, source, *, restart=False):
        """Queue an attempt."""
        return Job.create(
            self.GetConfigEntry("JobsRoot"),
            owner=self.GetConfigEntryWithDefault("Owner", "") or source.JobUserName,
            job_id=source.JobId,
            project=source.JobName,
            metadata={"plugin": source.JobPlugin, "user": source.JobUserName, "comment": source.JobComment},
            restart=restart,
        )


def add_outputs(job, directories, names):
    """Link the files of each output that was named at submission into the job's directory, or copy them."""
    for number, (directory, name) in enumerate(zip(directories, names), 1):
        pattern = re.sub(r"[@%$]", "_", name.replace("?", "#"))
        folder = f"output/{number}"
        (job.path / folder).mkdir(parents=True, exist_ok=True)
        source = Path(RepositoryUtils.CheckPathMapping(directory, True))  # noqa: FBT003 - as documented
        is_wanted = matcher(name)
        for path in source.iterdir():
            if is_wanted(path.name):
                link_or_copy(path, job.path / folder / re.sub(r"[@%$]", "_", path.name))
        key, role = ("main", "main") if number == 1 else (f"output-{number}", "data")
        job.add_output(key, f"{folder}/{pattern}", role=role)


def matcher(name):
    """Return what tells whether a file is one of an output: `a.####.exr` and `a.????.exr` are sequences."""
    head, digits, tail = re.fullmatch(r"(.*?)([#?]*)([^#?]*)", name, re.DOTALL).groups()
    number = rf"-?\d{{{len(digits)},}}" if digits else ""
    return re.compile(re.escape(head) + number + re.escape(tail)).fullmatch


def link_or_copy(source, target):
    """Link a file, which takes no space; copy it if it is on another file system."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
