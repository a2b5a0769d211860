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

EVENTS = (
    "JobSubmitted", "JobStarted", "SlaveRendering", "JobError", "JobSuspended", "JobRequeued", "JobResumed",
    "JobFinished", "JobFailed", "JobDeleted", "HouseCleaning",
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
        """Write how many tasks are done, when a Worker begins to render."""
        self.update(source, lambda job: write_progress(job, source))

    def OnHouseCleaning(self):  # noqa: N802
        """Write how far the tasks are, and keep all unfinished jobs from becoming stalled.

        Deadline does this at intervals. Jobs that have no directory are not those of this plug-in.
        """

        def refresh(job):
            if source.JobCompletedTasks or source.JobRenderingTasks:
                write_progress(job, source, begun=progress_of_tasks(source))
            else:
                job.keep_alive()

        for source in RepositoryUtils.GetJobsInState("Active"):
            self.update(source, refresh, creates=False)
        for state in ("Pending", "Suspended"):
            for source in RepositoryUtils.GetJobsInState(state):
                self.update(source, Job.keep_alive, creates=False)

    def OnJobError(self, source, _task, report):  # noqa: N802
        """Log the error of a task, which Deadline may try again."""
        text = f"error on {report.ReportSlaveName}: {report.ReportMessage}"
        self.update(source, lambda job: job.log(text))

    def OnJobSuspended(self, source):  # noqa: N802
        """Say that the render is suspended. A job that has not begun stays queued."""
        self.update(source, lambda job: job.status == "queued" or job.progress(phase="suspended"))

    def OnJobRequeued(self, source):  # noqa: N802
        """Queue the next attempt of a job that had ended."""
        self.update(source, None, restarts=True)

    OnJobResumed = OnJobRequeued

    def OnJobFinished(self, source):  # noqa: N802
        """Bring the outputs into the job's directory, and complete the job."""

        def complete(job):
            try:
                add_outputs(job, list(source.JobOutputDirectories), list(source.JobOutputFileNames))
            except OSError as error:  # there is no later event that could end the job
                job.fail(f"the outputs could not be brought into the job's directory: {error.strerror}")
                raise
            job.complete()

        self.update(source, complete)

    def OnJobFailed(self, source):  # noqa: N802
        """End the job as failed."""
        error = f"{source.JobFailedTasks} of {source.JobTaskCount} tasks have failed"

        def fail(job):
            has_log = (job.path / "render.log").exists()  # a person can fail a job without any error
            job.fail(f"{error}: the log has their errors" if has_log else error)

        self.update(source, fail)

    def OnJobDeleted(self, source):  # noqa: N802
        """End a job that has not ended as canceled."""
        self.update(source, lambda job: job.cancel())

    def update(self, source, change, *, restarts=False, creates=True):
        """Change a job that has not ended, or its next attempt."""
        try:
            job = self.open(source, creates=creates)
            if job is None:
                return
            if restarts and job.has_ended:
                job = self.create(source, restart=True)
            if change and not job.has_ended:
                change(job)
        except (JobError, OSError, ValueError) as error:
            self.LogWarning(f"jobsvc: job {source.JobId} is not written: {error}")

    def jobs_root(self):
        """Return the directory of jobs."""
        root = self.GetConfigEntryWithDefault("JobsRoot", "").strip()
        if not root:
            raise JobError("name the jobs root in Tools > Configure Events > Jobsvc")
        return Path(root)

    def open(self, source, *, creates):
        """Return the job of jobsvc. It may be created if the machine that submitted it could not do so."""
        root = self.jobs_root()
        if (root / source.JobId / "status.json").exists():
            return Job.open(root, source.JobId)
        return self.create(source) if creates else None

    def create(self, source, *, restart=False):
        """Queue an attempt."""
        return Job.create(
            self.jobs_root(),
            owner=self.owner_of(source.JobUserName),
            job_id=source.JobId,
            project=source.JobName,
            metadata={"plugin": source.JobPlugin, "user": source.JobUserName, "comment": source.JobComment},
            restart=restart,
        )

    def owner_of(self, user):
        """Return the owner of a user's jobs: by `Owners`, which is anna=acme;ben=globex, else by `Owner`."""
        pairs = [pair.partition("=") for pair in self.GetConfigEntryWithDefault("Owners", "").split(";")]
        owners = {name.strip().lower(): owner.strip() for name, _, owner in pairs}
        return owners.get(user.lower()) or self.GetConfigEntryWithDefault("Owner", "").strip() or user


def write_progress(job, source, begun=0.0):
    """Write how many tasks are done. `begun` is how much of the others is done, in tasks."""
    done, total = source.JobCompletedTasks, source.JobTaskCount
    percent = min(99, 100 * (done + begun) / max(total, 1))
    job.progress(percent, phase=f"{done} of {total} tasks are done")


def progress_of_tasks(source):
    """Return how much of the tasks that are rendered now is done, in tasks. Not all renderers report it."""
    tasks = RepositoryUtils.GetJobTasks(source, True).TaskCollectionAllTasks  # noqa: FBT003 - as documented
    reported = [re.match(r"\d+", task.TaskProgress or "") for task in tasks if task.TaskStatus == "Rendering"]
    return sum(int(percent[0]) / 100 for percent in reported if percent)


def add_outputs(job, directories, names):
    """Link the files of each output that was named at submission into the job's directory, or copy them."""
    for number, (directory, name) in enumerate(zip(directories, names), 1):
        pattern = re.sub(r"[@%$]", "_", name.replace("?", "#"))
        folder = f"output/{number}"
        (job.path / folder).mkdir(parents=True, exist_ok=True)
        source = Path(RepositoryUtils.CheckPathMapping(directory, True))  # noqa: FBT003 - as documented
        is_wanted = matcher(name)
        for path in source.iterdir() if source.is_dir() else ():
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
