"""A job as its clients see it: the JSON of `GET /api/jobs/{id}` and its entity tag."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from jobsvc.storage.reader import Reading

_OPTIONAL: Final = (
    ("completedAt", "completed_at"),
    ("startedAt", "started_at"),
    ("error", "error"),
    ("sourceStatus", "source_status"),
    ("phase", "phase"),
    ("framesDone", "frames_done"),
    ("framesTotal", "frames_total"),
    ("attempt", "attempt"),
    ("metadata", "metadata"),
)


def represent(reading: Reading, logs: str | None = None, digest: bytes | None = None) -> dict[str, Any]:
    """Write a job with the contract's names; what does not apply is left out, not null.

    `digest` is the SHA-256 of the output as the reading saw it.
    """
    job = reading.job
    document = {
        "id": job.id,
        "status": job.status.value,
        "done": job.status.final,
        "progress": job.progress,
        "projectPath": job.project_path,
        "outputPath": job.output_path,
        "createdAt": job.created_at,
        "updatedAt": job.updated_at,
    }
    for name, attribute in _OPTIONAL:
        value = getattr(job, attribute)
        if value is not None:
            document[name] = value
    if logs is not None:
        document["logs"] = logs
    if reading.output:
        document["downloadUrl"] = download_url(job.id)
    if digest is not None:
        document["outputSha256"] = digest.hex()
    return document


class Shown(NamedTuple):
    """A representation, ready to be sent."""

    body: bytes
    etag: str


class Representations:
    """Remembers what was made of the readings asked for lately: polls ask for the same again and again."""

    def __init__(self, most: int = 32_768) -> None:
        """Keep at most `most`, about half a kilobyte each."""
        self._most = most
        self._made: dict[str, tuple[Reading, bytes | None, Shown]] = {}

    def of(self, reading: Reading, logs: str | None, digest: bytes | None = None) -> Shown:
        """Represent a reading; with logs, which change without it, always anew."""
        if logs is not None:
            return _show(reading, logs, digest)
        made = self._made.get(reading.job.id)
        if made is not None and made[0] is reading and made[1] == digest:
            return made[2]
        shown = _show(reading, None, digest)
        if len(self._made) >= self._most:
            self._made.clear()
        self._made[reading.job.id] = (reading, digest, shown)
        return shown


def _show(reading: Reading, logs: str | None, digest: bytes | None) -> Shown:
    body = orjson.dumps(represent(reading, logs, digest))
    return Shown(body, entity_tag(body))


def entity_tag(body: bytes) -> str:
    """Give a strong entity tag (RFC 9110, section 8.8.3): equal for equal bytes, across restarts too."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def download_url(job_id: str) -> str:
    """Give the address of a job's output, relative to the service's own (RFC 3986, section 4.2)."""
    return f"/api/jobs/{job_id}/download"
