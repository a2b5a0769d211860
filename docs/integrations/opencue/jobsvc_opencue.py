"""Write the jobs of OpenCue as jobs of jobsvc. README.md says what becomes what."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import threading
from pathlib import Path

import opencue.api
import opencue.exception

from jobsvc.farm import Job, JobError

OUTPUT = "output/"
logger = logging.getLogger("jobsvc_opencue")


class Bridge:
    """Keeps the job directories as OpenCue's jobs are."""

    def __init__(self, jobs_root, owner):
        """Without an owner, each job belongs to the owner with the name of its show."""
        self.jobs_root = Path(jobs_root)
        self.owner = owner
        self.unfinished = None  # ids of jobs; None before the first time
        self.reported = set()  # ids of jobs whose names have been used before

    def update_all(self, shows):
        """Bring all directories up to date. What fails is logged, and tried again the next time."""
        if self.unfinished is None:  # some may have finished while this program was away
            jobs = opencue.api.getJobs(show=shows, include_finished=True)
            jobs = [job for job in jobs if not is_finished(job) or (self.jobs_root / job.name()).exists()]
        else:
            jobs = opencue.api.getJobs(show=shows)
            jobs += filter(None, map(find, self.unfinished - {job.id() for job in jobs}))
        self.unfinished = {job.id() for job in jobs}
        for job in jobs:
            try:
                has_ended = self.update(job)
            except (JobError, OSError) as error:  # an output that is missing fails the job
                logger.error("%s: %s", job.name(), error)  # noqa: TRY400
                has_ended = is_finished(job) and isinstance(error, JobError)
            if has_ended:
                self.unfinished.discard(job.id())

    def update(self, source):
        """Bring a job's directory to the state of the job. Returns whether it has ended."""
        directory = self.jobs_root / source.name()
        if not (directory / "status.json").exists():
            self.create(source)
        job = Job.open(self.jobs_root, source.name())
        if id_in_record(directory) != source.id():
            if source.id() not in self.reported:
                self.reported.add(source.id())
                raise JobError(f"{directory} is that of an earlier job: submit the job with another name")
        elif not job.has_ended:
            write(job, source)
            if job.has_ended:
                logger.info("%s: %s", job.id, job.status)
        return is_finished(source)

    def create(self, source):
        """Queue a job. Its frames may have begun to write files."""
        about = {"id": source.id(), "show": source.show(), "shot": source.shot(), "user": source.user()}
        Job.create(
            self.jobs_root,
            owner=self.owner or source.show(),
            job_id=source.name(),
            output=OUTPUT,
            metadata={"opencue": about},
            keep_outputs=True,
        )
        logger.info("%s: queued", source.name())


def find(job_id):
    """Return a job; None if OpenCue no longer has it."""
    try:
        return opencue.api.getJob(job_id)
    except opencue.exception.EntityNotFoundException:
        logger.error("job %s is no longer in OpenCue: its directory stays unfinished", job_id)  # noqa: TRY400
        return None


def is_finished(source):
    """Return whether OpenCue has finished a job, or killed it."""
    return source.state() == opencue.api.job_pb2.FINISHED


def id_in_record(directory):
    """Return the id of the job of OpenCue that a directory was created for."""
    record = json.loads((directory / "status.json").read_bytes())
    return ((record.get("metadata") or {}).get("opencue") or {}).get("id")


def write(job, source):
    """Write what has become of a job that has not ended. Eaten frames are those that people gave up."""
    frames = source.data.job_stats
    done, total, dead = frames.succeeded_frames + frames.eaten_frames, frames.total_frames, frames.dead_frames
    if is_finished(source):
        if done >= total:
            job.progress(frames=(done, total))
            job.complete()
        elif dead:
            job.fail(f"{dead} of {total} frames have failed: their logs are in {source.logDir()}")
        else:
            job.cancel()
    elif done or dead or frames.running_frames or job.status == "rendering":
        job.progress(frames=(done, total), phase=f"{dead} frames have failed" if dead else "rendering")
    else:
        job.keep_alive()


def main():
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        description="Writes the jobs of OpenCue as jobs of jobsvc. CUEBOT_HOSTS names the Cuebot."
    )
    root = os.environ.get("JOBSVC_JOBS_ROOT")
    parser.add_argument("--jobs-root", default=root, required=root is None, help="where the jobs are written")
    parser.add_argument("--show", action="append", required=True, help="whose jobs are written; repeatable")
    parser.add_argument("--owner", help="owner of the jobs; by default the name of the show")
    parser.add_argument("--interval", type=float, default=5, metavar="SECONDS", help="how often to look")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    bridge = Bridge(options.jobs_root, options.owner)
    while not stopping.is_set():
        try:
            bridge.update_all(options.show)
        except opencue.exception.CueException as error:
            logger.error("Cuebot: %s", error)  # noqa: TRY400
        except OSError as error:
            logger.error("storage: %s", error)  # noqa: TRY400
        stopping.wait(options.interval)


if __name__ == "__main__":
    main()
