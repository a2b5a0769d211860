"""A service in a process of its own, over a copy of the sample jobs, requested over a socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson
import requests

import jobsvc
from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.storage.layout import STATUS_FILE, TOKENS_FILE
from jobsvc.storage.state.token_file import create
from tests.contract.description import EXAMPLES

ROOT: Final = Path(jobsvc.__file__).parents[1]
SAMPLES: Final = ROOT / "sample_jobs"

QUEUED: Final = "3f9c2a6e-7d54-4b1e-9a53-5c0d6b1f8e21"
RENDERING: Final = "product-spin-0108"
COMPLETED: Final = "opening-title-0042"
FAILED: Final = "turntable-0013"
CANCELED: Final = "credits-roll-0005"
ANOTHERS: Final = "bumper-0001"
WITHOUT_OUTPUT: Final = "output-missing"
FRAMES: Final = "frames"
"""Completed; its outputs are a sequence that lacks a frame, a directory and a file."""
EMPTY: Final = "empty-directory"
"""Completed; its main output is a directory without files."""
LARGE: Final = "large"
"""Completed; its output exceeds all buffers between service and client."""

WITHOUT_LISTING: Final = """
from threading import Event
from jobsvc.cli import main
from jobsvc.index.scan import reconciler
reconciler.list_job_ids = lambda root: Event().wait()
main()
"""
"""The service over storage that can read each job, but never returns a listing."""

WITH_FEW_FILES: Final = """
from jobsvc.cli import main
from jobsvc.storage.archive import lister
lister.MAX_FILES = 1
main()
"""
"""The service with a lower limit of the files of a job."""

FRAMES_OUTPUTS: Final = [
    {"name": "beauty", "path": "output/beauty.####.exr", "role": "main", "frames": "1001-1003"},
    {"name": "textures", "path": "textures/"},
    {"name": "preview", "path": "preview.mp4", "role": "preview"},
]
FRAMES_FILES: Final = {
    "output/beauty.1001.exr": bytes(2000),
    "output/beauty.1003.exr": bytes(2000),
    "textures/wood/oak 1.png": bytes(10),
    "preview.mp4": bytes(10),
}
"""Content by path in the job's directory."""

READ: Final = (JOBS_READ, OUTPUTS_READ)
JOBS_ONLY, OUTPUTS_ONLY, FRESH = 1, 2, 3
"""Indexes of tokens: the second may only read jobs, the third only download, the others are spare."""


@dataclass
class Service:
    """The service's address and tokens."""

    url: str
    jobs: Path
    tokens: list[str]
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def token(self) -> str:
        return self.tokens[0]

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        *,
        anonymous: bool = False,
        body: bytes | None = None,
    ) -> requests.Response:
        """Send a request; its target is sent unmodified, bypassing the client's normalization."""
        fields = dict(headers or {})
        if not anonymous:
            fields.setdefault("Authorization", f"Bearer {token or self.token}")
        request = self.session.prepare_request(requests.Request(method, self.url, headers=fields, data=body))
        request.url = self.url + target
        return self.session.send(request, timeout=20)

    @contextmanager
    def begin(self, target: str) -> Iterator[requests.Response]:
        """Open a response that may never end, during a block."""
        fields = {"Authorization": f"Bearer {self.token}"}
        with self.session.get(self.url + target, headers=fields, stream=True, timeout=20) as response:
            yield response

    @contextmanager
    def stream(self, target: str) -> Iterator[requests.Response]:
        """Have a stream for the length of a block, as soon as the end of the one before it is noticed."""
        while True:
            with self.begin(target) as response:
                if response.status_code != 429:
                    yield response
                    return


@contextmanager
def running(
    folder: Path, *options: str, listed: bool = True, program: str | None = None
) -> Iterator[Service]:
    """Start a service below `folder`, and end it by its own process id.

    If its jobs cannot be listed, it never becomes ready. `program` starts it in another way.
    """
    jobs, state = folder / "jobs", folder / "state"
    _lay_out(jobs)
    scopes = [READ, (JOBS_READ,), (OUTPUTS_READ,), *[READ] * 16]
    tokens = [create(state / TOKENS_FILE, "demo", some)[0] for some in scopes]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JOBSVC_")}
    source = program if listed else WITHOUT_LISTING
    module = ["-m", "jobsvc"] if source is None else ["-c", source]
    words = [sys.executable, *module, "serve", str(jobs), "--port", "0", "--state-dir", str(state)]
    log = folder / "log"
    with log.open("wb") as told:
        process = subprocess.Popen(
            [*words, "--shutdown-grace", "0", "--stalled-after", "0", *options],
            cwd=ROOT,
            env=environment,
            stderr=told,
        )
    try:
        service = Service(until(lambda: _address_in(log)), jobs, tokens)
        with service.session:
            until(lambda: not listed or service.ask("GET", "/readyz").ok)
            yield service
    finally:
        process.terminate()
        process.wait(20)
        sys.stdout.write(log.read_text())  # pytest shows it with a failed test


def until(condition: Callable[[], Any], deadline: float = 20) -> Any:
    """Return the result of `condition` as soon as it is true; fail after `deadline` seconds."""
    ends = time.monotonic() + deadline
    while not (found := condition()):
        assert time.monotonic() < ends, f"not true within {deadline} s"
        time.sleep(0.01)
    return found


def _lay_out(jobs: Path) -> None:
    """Copy the samples, valid and broken, into one root."""
    shutil.copytree(SAMPLES, jobs, symlinks=True)
    shutil.copytree(SAMPLES / "broken", jobs, symlinks=True, dirs_exist_ok=True)
    written = datetime.fromisoformat(EXAMPLES["JobQueued"]["value"]["updatedAt"]).timestamp()
    os.utime(jobs / QUEUED / STATUS_FILE, (written, written))
    (jobs / LARGE).mkdir()
    with (jobs / LARGE / "film.mov").open("wb") as film:
        film.truncate(64 << 20)
    _complete(jobs / LARGE, outputPath="film.mov")
    for path, content in FRAMES_FILES.items():
        (jobs / FRAMES / path).parent.mkdir(parents=True, exist_ok=True)
        (jobs / FRAMES / path).write_bytes(content)
    _complete(jobs / FRAMES, outputs=FRAMES_OUTPUTS)
    (jobs / EMPTY / "empty").mkdir(parents=True)
    (jobs / EMPTY / "notes.txt").write_bytes(b"notes")
    outputs = [{"name": "main", "path": "empty/", "role": "main"}, {"name": "notes", "path": "notes.txt"}]
    _complete(jobs / EMPTY, outputs=outputs)


def _complete(folder: Path, **record: Any) -> None:
    document = {"status": "completed", "owner": "demo", **record}
    (folder / STATUS_FILE).write_bytes(orjson.dumps(document))


def _address_in(log: Path) -> str | None:
    for line in log.read_bytes().splitlines():
        if b'"serving"' in line:
            return str(orjson.loads(line)["address"])
    return None
