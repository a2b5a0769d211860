"""A service shared by all tests of a module, which only send requests and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson

from jobsvc.domain.access import JOBS_READ, OUTPUTS_READ
from jobsvc.storage.state import token_file
from tests.conftest import put
from tests.programs.service_runner import Process, start_service_process, stop_process


@contextmanager
def shared_service(folder: Path, jobs: Mapping[str, bytes | str], *words: object) -> Iterator[Process]:
    """Serve jobs of anna: by id the output of a completed job, or the status of another one.

    It has no limits that a test could reach; `words` are further command-line arguments.
    """
    for job_id, content in jobs.items():
        record = {"owner": "anna", "outputPath": "output/film.mp4", "status": content}
        if isinstance(content, bytes):
            put(folder / "jobs" / job_id / "output" / "film.mp4", content)
            record["status"] = "completed"
        put(folder / "jobs" / job_id / "status.json", orjson.dumps(record))
    (folder / "state").mkdir(mode=0o700)
    token = token_file.create(folder / "state" / "tokens.json", "anna", [JOBS_READ, OUTPUTS_READ], None)[0]
    limits = [f"--limit-{name}=1000000/second" for name in ("status", "download", "auth-failures")]
    service = start_service_process(
        (folder / "jobs", "--watch", "poll", *limits, *words), folder / "state", folder / "said", token
    )
    try:
        yield service
    finally:
        stop_process(service.process)
