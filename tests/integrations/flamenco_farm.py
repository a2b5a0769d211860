"""A farm of Flamenco as the bridge sees it: its Manager's API and the messages, without Flamenco.

The JSON has the keys of Job, TaskSummary, Task, JobLastRenderedImageInfo, EventJobUpdate and EventTaskUpdate
in flamenco-openapi.yaml of Flamenco 3.8.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from jobsvc.domain.status_record import parse_record
from tests.eventually import wait_until
from tests.programs.mosquitto import Mosquitto

BRIDGE: Final = Path(__file__).parents[2] / "docs" / "integrations" / "flamenco" / "jobsvc_flamenco.py"
IMAGE: Final = b"an image"


def now(**ago: float) -> str:
    """Return a time as Flamenco writes it, with nanoseconds."""
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"


class Manager(ThreadingHTTPServer):
    """Responds to the requests of the bridge from what a test has put into `jobs`, `tasks` and `images`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.tasks: dict[str, list[dict[str, Any]]] = {}
        self.images: set[str] = set()
        self.error = b'{"code": 404, "message": "no such job"}\n'
        super().__init__(("127.0.0.1", 0), _Handler)

    def respond(self, path: str) -> bytes | None:
        """Return the body for a path; None is a 404."""
        match path.removeprefix("/api/v3/").split("/"):
            case ["jobs"]:
                body: object = {"jobs": list(self.jobs.values())}
            case ["jobs", job] if job in self.jobs:
                body = self.jobs[job]
            case ["jobs", job, "tasks"]:
                body = {"tasks": self.tasks.get(job, [])}
            case ["jobs", job, "last-rendered"]:
                body = _last_rendered(job) if job in self.images else None
            case ["tasks", task]:
                body = next(one for tasks in self.tasks.values() for one in tasks if one["id"] == task)
            case ["", "job-files", _, job, "last-rendered-small.jpg"] if job in self.images:
                return IMAGE
            case _:
                return None
        return b"" if body is None else json.dumps(body).encode()


def _last_rendered(job: str) -> dict[str, object]:
    suffixes = ["last-rendered.jpg", "last-rendered-small.jpg", "last-rendered-tiny.jpg"]
    return {"base": f"/job-files/job-{job[:4]}/{job}", "suffixes": suffixes}


class _Handler(BaseHTTPRequestHandler):
    server: Manager

    def do_GET(self) -> None:
        body = self.server.respond(self.path)
        self.send_response(404 if body is None else 200 if body else 204)
        body = self.server.error if body is None else body
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        pass


@dataclass
class Farm:
    """The Manager, its broker and its storage, and the bridge with its job directories."""

    folder: Path
    broker: Mosquitto
    manager: Manager
    log: Path = field(init=False)
    _bridge: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for name in ("jobs", "storage"):
            (self.folder / name).mkdir()
        self.log = self.folder / "bridge.log"

    def start(self, *options: str, until: str = "connection: Success") -> None:
        """Start the bridge, and wait until it has logged that it is connected, or something else."""
        before = self.log.read_text().count(until) if self.log.exists() else 0
        addresses = [f"http://127.0.0.1:{self.manager.server_port}", f"mqtt://127.0.0.1:{self.broker.port}"]
        command = [sys.executable, str(BRIDGE), "--manager", addresses[0], "--broker", addresses[1]]
        where = ["--jobs-root", str(self.folder / "jobs"), "--storage", f"{{render}}={self.folder}/storage"]
        with self.log.open("ab") as log:
            self._bridge = subprocess.Popen(
                [*command, *where, "--owner", "acme", "--owner-key", "client", *options],
                env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        self.wait_for_log(until, before + 1)

    def stop(self) -> None:
        """Stop the bridge as systemd does."""
        assert self._bridge is not None
        self._bridge.terminate()
        assert self._bridge.wait(20) == 0
        self._bridge = None

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Wait until the bridge has logged a text."""
        wait_until(lambda: self.log.read_text().count(text) >= count)

    def submit(self, frames: int = 4, **values: Any) -> str:
        """Submit a job as Flamenco's add-on does, without a message. Returns its id."""
        job = str(uuid.uuid4())
        settings = {
            "blendfile": "{render}/title.flamenco.blend", "frames": f"1-{frames}", "format": "PNG",
            "image_file_extension": ".png", "render_output_path": f"{{render}}/{job}/######",
        }  # fmt: skip
        self.manager.tasks[job] = [
            {"id": str(uuid.uuid4()), "name": f"render-{number}", "status": "queued", "activity": "",
             "index_in_job": number, "priority": 50, "task_type": "blender", "updated": now(),
             "steps_completed": 0, "steps_total": 1}
            for number in range(1, frames + 1)
        ]  # fmt: skip
        self.manager.jobs[job] = {
            "id": job, "name": "Title", "type": "simple-blender-render", "priority": 50, "created": now(),
            "updated": now(), "status": "queued", "activity": "", "steps_completed": 0, "steps_total": frames,
            "settings": settings, "metadata": {"project": "Aurora"}, **values,
        }  # fmt: skip
        return job

    def change(self, job: str, status: str, *tasks: str, activity: str = "") -> None:
        """Give a job and its first tasks another status, without a message."""
        for task, task_status in zip(self.manager.tasks[job], tasks, strict=False):
            task.update(
                status=task_status, activity=activity, steps_completed=int(task_status == "completed")
            )
        self.manager.jobs[job].update(
            status=status, updated=now(), activity=f'Changed to status "{status}": {activity}'
        )

    def announce(self, job: str, **values: object) -> None:
        """Send the message that a job has changed."""
        self.broker.publish("flamenco/jobs", self.job_update(job, **values))

    def announce_task(self, job: str) -> None:
        """Send the message that a task has changed."""
        task = self.manager.tasks[job][0]
        self.broker.publish(f"flamenco/jobs/{job}", json.dumps({**task, "job_id": job}))

    def announce_image(self, job: str) -> None:
        """Have an image, and send the message of it."""
        self.manager.images.add(job)
        update = json.dumps({"job_id": job, "thumbnail": _last_rendered(job)})
        for topic in (f"flamenco/jobs/{job}/last-rendered", "flamenco/last-rendered"):
            self.broker.publish(topic, update)

    def job_update(self, job: str, **values: object) -> str:
        """Return an EventJobUpdate."""
        keys = ("id", "name", "updated", "status", "type", "priority", "steps_completed", "steps_total")
        update = {key: self.manager.jobs[job][key] for key in keys}
        return json.dumps({**update, "refresh_tasks": False, **values})

    def render(self, job: str, frames: int = 4) -> Path:
        """Write the frames of a job, and the film of them. Returns their directory."""
        folder = self.folder / "storage" / job
        folder.mkdir()
        for name in [f"{number:06}.png" for number in range(1, frames + 1)] + [f"title-1-{frames}.mp4"]:
            (folder / name).write_bytes(name.encode())
        return folder

    def record(self, job: str) -> dict[str, Any]:
        """Return a job's record, which has to be valid; empty if there is none."""
        path = self.folder / "jobs" / job / "status.json"
        if not path.exists():
            return {}
        record = json.loads(path.read_bytes())
        parse_record(job, record, 0)
        return dict(record)

    def wait_for(self, job: str, **values: object) -> dict[str, Any]:
        """Wait until a job's record has some values. Returns it."""
        wait_until(lambda: values.items() <= self.record(job).items())
        return self.record(job)


@contextmanager
def flamenco_farm(folder: Path, broker: Mosquitto) -> Iterator[Farm]:
    """Run a Manager during a block; `Farm.start` starts the bridge."""
    with Manager() as manager:
        thread = threading.Thread(target=manager.serve_forever, args=[0.05])
        thread.start()
        farm = Farm(folder, broker, manager)
        try:
            yield farm
        finally:
            if farm._bridge is not None:
                farm.stop()
            manager.shutdown()
            thread.join()
