"""Write the jobs of Flamenco as jobs of jobsvc. README.md says what becomes what.

Flamenco's MQTT messages only tell which job has changed. The job itself is read from the Manager, so that
messages may be lost, repeated or late. They are not retained, and Flamenco drops some while the broker is
away: all jobs are read after each connection to the broker, and every --refresh seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote, urlsplit

import paho.mqtt.client as mqtt
from flamenco_outputs import add_outputs

from jobsvc.farm import Job, JobError

STATUSES = {
    "under-construction": "queued", "queued": "queued", "requeueing": "queued", "paused": "queued",
    "active": "rendering", "pause-requested": "rendering", "cancel-requested": "rendering",
    "completed": "completed", "failed": "failed", "canceled": "canceled",
}  # fmt: skip
END_STATES = ("completed", "failed", "canceled")
JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
POLL_S = 0.2  # a job is read at most once in this time, however many messages there are about it
logger = logging.getLogger("jobsvc_flamenco")


class Bridge:
    """Keeps the job directories as Flamenco's jobs are."""

    def __init__(self, options):
        self.options = options
        self.stopping, self.is_refresh_due = threading.Event(), threading.Event()
        self.requests = queue.SimpleQueue()  # ids of jobs that have changed
        self.settled = {}  # status and time in Flamenco of each job that needs no more work
        self.unfinished = {}  # ids of jobs; a dict, because its copy is safe while other threads add to it

    def run(self):
        """Update jobs until told to stop: several at a time, but each in one thread only."""
        wanted, running, next_refresh = set(), {}, 0.0
        with ThreadPoolExecutor(4) as threads:
            while not self.stopping.wait(POLL_S):
                if self.is_refresh_due.is_set() or time.monotonic() > next_refresh:
                    self.is_refresh_due.clear()
                    next_refresh = time.monotonic() + self.options.refresh
                    self.attempt("the list of jobs", self.request_changed)
                while not self.requests.empty():
                    wanted.add(self.requests.get())
                running = {job_id: future for job_id, future in running.items() if not future.done()}
                ready = wanted - running.keys()
                wanted -= ready
                running.update({job: threads.submit(self.attempt, job, self.update, job) for job in ready})
            threads.shutdown(cancel_futures=True)

    def attempt(self, subject, function, *arguments):
        """Call a function, and report an error instead of raising it: the next refresh tries again."""
        try:
            function(*arguments)
        except Exception as error:
            says_why = isinstance(error, (OSError, JobError))
            logger.error("%s: %s", subject, error, exc_info=not says_why)  # noqa: TRY400

    def request(self, job_id):
        """Have a job updated soon. Only UUIDs are taken, because directories are named after them."""
        if not isinstance(job_id, str) or not JOB_ID.fullmatch(job_id):
            raise JobError(f"{str(job_id)[:100]!r} is no id of a job of Flamenco")
        self.requests.put(job_id)

    def request_changed(self):
        """Have all jobs updated that have changed, and those that Flamenco no longer has."""
        jobs = {job["id"]: (job["status"], job["updated"]) for job in self.get("/api/v3/jobs")["jobs"]}
        changed = [job_id for job_id, state in jobs.items() if self.settled.get(job_id) != state]
        for job_id in {*changed, *self.unfinished.copy()}:
            self.attempt("the list of jobs", self.request, job_id)

    def get(self, path, decode=json.loads):
        """Return what the Manager has there; None if nothing."""
        try:
            with urllib.request.urlopen(self.options.manager + path, timeout=30) as response:  # noqa: S310
                data = response.read()
        except urllib.error.HTTPError as error:
            # A proxy before the Manager has another body: then the job is not gone.
            if b'"code":404' in error.read().replace(b" ", b""):
                return None
            raise
        return decode(data) if data else None

    def update(self, job_id):
        """Bring a job's directory to the state of the job."""
        try:
            job = Job.open(self.options.jobs_root, job_id)
        except JobError:
            job = None
        source = self.get(f"/api/v3/jobs/{job_id}")
        if source is None:
            # Only a job that was seen in Flamenco: other programs write jobs that are named by UUIDs, too.
            if self.unfinished.pop(job_id, None) and job and not job.has_ended:
                logger.info("%s: canceled, because it was deleted in Flamenco", job_id)
                job.cancel()
            return
        status = STATUSES[source["status"]]
        is_current = job.status == status if job else _age_h(source["updated"]) > self.options.catch_up
        if status not in END_STATES or not is_current:
            self.unfinished[job_id] = True
            if job is None or job.has_ended:
                job = self.create(job_id, source)
            try:
                self.write(job, status, source)
            except JobError as error:  # such as an empty frame; another attempt would not help
                logger.error("%s: %s", job_id, error)  # noqa: TRY400
        if status in END_STATES:
            self.settled[job_id] = (source["status"], source["updated"])
            self.unfinished.pop(job_id, None)

    def create(self, job_id, source):
        """Begin the job's next attempt."""
        metadata = source.get("metadata") or {}
        owner = metadata.get(self.options.owner_key) or self.options.owner
        project = (source.get("settings") or {}).get("blendfile")
        metadata = {**metadata, "flamenco": {key: source[key] for key in ("name", "type", "created")}}
        root, kept = self.options.jobs_root, {"project": project, "metadata": metadata}
        job = Job.create(root, owner=owner, job_id=job_id, restart=True, **kept)
        logger.info("%s: attempt %s", job_id, job.attempt)
        return job

    def write(self, job, status, source):
        """Write what has become of an attempt that has not ended."""
        tasks = (self.get(f"/api/v3/jobs/{job.id}/tasks") or {}).get("tasks") or []
        if status == "queued" and job.status == "queued":
            job.keep_alive()
        elif status not in END_STATES:
            percent, phase = _progress(source, tasks)
            job.progress(percent, phase=phase)
        elif status == "completed":
            if self.options.storage:
                add_outputs(job, self.options.storage, source.get("settings") or {})
            self.attempt(f"{job.id}: thumbnail", self.add_thumbnail, job)
            job.complete()
        elif status == "failed":
            job.fail(self.failure(source, tasks))
        else:
            job.cancel()
        if status in END_STATES:
            logger.info("%s: %s", job.id, status)

    def failure(self, source, tasks):
        """Say why a job has failed, in one sentence."""
        failed = [task for task in tasks if task["status"] == "failed"]
        if not failed:
            return source["activity"]
        reason = (self.get(f"/api/v3/tasks/{quote(failed[0]['id'], safe='')}") or {}).get("activity")
        return f"{failed[0]['name']}: {reason} ({len(failed)} of {len(tasks)} tasks have failed)"

    def add_thumbnail(self, job):
        """Add the image that Flamenco shows of the job, if there is one."""
        info = self.get(f"/api/v3/jobs/{job.id}/last-rendered")
        image = info and self.get(quote(f"/{info['base'].strip('/')}/last-rendered-small.jpg"), bytes)
        if image:
            (job.path / "thumbnail.jpg").write_bytes(image)
            job.add_output("thumbnail", "thumbnail.jpg", role="thumbnail")


def _age_h(timestamp):
    then = datetime.fromisoformat(re.sub(r"\.\d+", "", timestamp).replace("Z", "+00:00"))
    return (datetime.now(timezone.utc) - then).total_seconds() / 3600


def _progress(source, tasks):
    """Return percent and phase. Percent is that of steps, mostly frames, or of tasks: 3.7 has no steps."""
    done = sum(task.get("steps_completed", task["status"] == "completed") for task in tasks)
    total = sum(task.get("steps_total", 1) for task in tasks)
    active = [task["name"] for task in tasks if task["status"] == "active"]
    others = f" and {len(active) - 1} more" if len(active) > 1 else ""
    phase = f"{active[0]}{others}" if source["status"] == "active" and active else source["status"]
    return min(99, 100 * done / max(total, 1)), phase


def connect(bridge, broker, prefix):
    """Connect to the broker, again and again, and pass on which jobs have changed."""
    url = urlsplit(broker)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)

    def on_connect(_client, _data, _flags, reason, _properties):
        logger.log(logging.ERROR if reason.is_failure else logging.INFO, "%s: connection: %s", broker, reason)
        client.subscribe([(f"{prefix}/jobs", 1), (f"{prefix}/jobs/+", 1)])

    def on_subscribe(_client, _data, _id, reasons, _properties):
        if any(reason.is_failure for reason in reasons):
            logger.error("%s refuses to send messages: %s", broker, reasons)
        bridge.is_refresh_due.set()

    def handle(message):
        bridge.request(message.topic[len(f"{prefix}/jobs/") :] or json.loads(message.payload)["id"])

    client.on_connect, client.on_subscribe = on_connect, on_subscribe
    client.on_message = lambda _client, _data, message: bridge.attempt("a message", handle, message)
    client.on_connect_fail = lambda *_: logger.warning("%s: no connection", broker)
    client.on_disconnect = lambda *arguments: logger.warning("%s: disconnected: %s", broker, arguments[3])
    if url.scheme == "mqtts":
        client.tls_set()
    if "MQTT_USERNAME" in os.environ:
        client.username_pw_set(os.environ["MQTT_USERNAME"], os.environ.get("MQTT_PASSWORD"))
    client.reconnect_delay_set(1, 30)
    client.connect_async(url.hostname, url.port or (8883 if url.scheme == "mqtts" else 1883), keepalive=30)
    client.loop_start()
    return client


def _storage(text):
    name, _, mounted_at = text.partition("=")
    return name.replace("\\", "/").rstrip("/"), Path(mounted_at or name).resolve()


def main():
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Writes the jobs of Flamenco as jobs of jobsvc.")
    add = parser.add_argument
    root = os.environ.get("JOBSVC_JOBS_ROOT")
    add("--jobs-root", default=root, required=root is None, help="where the jobs are written")
    add("--manager", default="http://localhost:8080", help="http://HOST:PORT")
    add("--broker", default="mqtt://localhost", help="mqtt://HOST:PORT or mqtts://HOST:PORT")
    add("--topic-prefix", default="flamenco", help="the one in flamenco-manager.yaml")
    add("--owner", required=True, help="owner of the jobs")
    add("--owner-key", help="key in the metadata of Flamenco's jobs that names another owner")
    add("--storage", type=_storage, action="append", metavar="NAME[=PATH]", help="where outputs may be")
    add("--refresh", type=float, default=60, metavar="SECONDS", help="when to read all jobs again")
    add("--catch-up", type=float, default=24, metavar="HOURS", help="leave out jobs that ended before")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    bridge = Bridge(options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: bridge.stopping.set())
    client = connect(bridge, options.broker, options.topic_prefix)
    bridge.run()
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
