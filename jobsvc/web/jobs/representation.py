"""A job as its clients see it: the JSON of `GET /api/jobs/{id}` and its entity tag."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.headers.conditional import version_of
from jobsvc.web.jobs.addresses import download_url, job_base

_BEFORE_METADATA: Final = (
    *("projectPath", "startedAt", "completedAt", "framesDone", "framesTotal", "attempt"),
)
_BEHIND_METADATA: Final = ("phase", "error", "sourceStatus")
"""What a job's details are called, in their order; the last of them is not shown."""


def render_job(
    reading: JobSnapshot, base: str, logs: str | None = None, digest: bytes | None = None
) -> dict[str, Any]:
    """Write a job with the contract's names; what does not apply is left out, not null.

    `base` is what the job's addresses begin with; `digest` is the SHA-256 of the output as it was read.
    """
    job, status = reading.job, reading.job.status
    document = {
        "id": job.id,
        "status": str(status),
        "done": status.final,
        "progress": job.progress,
        "projectPath": None,
        "outputPath": job.output_path,
        "createdAt": job.created_at,
        "updatedAt": job.updated_at,
    }
    details = iter(job.details())
    document |= {
        name: value for name, value in zip(_BEFORE_METADATA, details, strict=False) if value is not None
    }
    if (metadata := job.metadata_json) is not None:
        document["metadata"] = orjson.Fragment(metadata)
    document |= {
        name: value for name, value in zip(_BEHIND_METADATA, details, strict=False) if value is not None
    }
    if logs is not None:
        document["logs"] = logs
    if (output := reading.output_version) is not None:
        document["downloadUrl"] = download_url(base, version_of(*output.parts()))
    if digest is not None:
        document["outputSha256"] = digest.hex()
    return document


class RenderedJob(NamedTuple):
    """A representation, ready to be sent."""

    body: bytes
    etag: str
    reference: int = 0
    """Where in the body the path to the output begins; 0 where there is no path from the root."""

    def parts_for(self, job_id: str, base: str | None) -> tuple[bytes | memoryview, ...]:
        """Return the body with a relative reference; `base` leads to the job from the address that was asked.

        The body as it is where `base` is None. Its parts are not copied: many streams may send them.
        """
        if base is None or not self.reference:
            return (self.body,)
        view, end = memoryview(self.body), self.reference + len(job_base("", job_id))
        return view[: self.reference], base.encode(), view[end:]


_URL: Final = b'"downloadUrl":"'


class _CachedRepresentation(NamedTuple):
    """What was shown, and of what."""

    reading: JobSnapshot
    logs: str | None
    digest: bytes | None
    shown: RenderedJob


class RepresentationCache:
    """Remembers what was made of the readings asked for lately: polls ask for the same again and again."""

    def __init__(
        self,
        most: int = 32_768,
        cap: int = 64 << 20,
        *,
        digest_of: Callable[[JobSnapshot], bytes | None] | None = None,
        public_url: str = "",
    ) -> None:
        """Keep at most `most`, of about half a kilobyte each where they have no log, and `cap` bytes.

        Addresses begin with `public_url`.

        `digest_of` says which SHA-256 of an output is known; without it none is shown.
        """
        self._most = most
        self._cap = cap
        self._size = 0
        self._cached: dict[str, _CachedRepresentation] = {}
        self._digest_of = digest_of
        self._public_url = public_url

    def get(self, reading: JobSnapshot, logs: str | None) -> RenderedJob:
        """Represent a reading, with the end of its log where there is one to show."""
        made = self._cached.get(reading.job.id)
        digest = None if self._digest_of is None or not reading.has_output else self._digest_of(reading)
        if made is not None and made.reading is reading and made.logs is logs and made.digest == digest:
            return made.shown
        if made is not None:
            self._size -= len(made.shown.body)
        shown = self._render(reading, logs, digest)
        if len(self._cached) >= self._most or self._size > self._cap:
            self._cached.clear()
            self._size = 0
        self._size += len(shown.body)
        self._cached[reading.job.id] = _CachedRepresentation(reading, logs, digest, shown)
        return shown

    def _render(self, reading: JobSnapshot, logs: str | None, digest: bytes | None) -> RenderedJob:
        base = job_base(self._public_url, reading.job.id)
        body = orjson.dumps(render_job(reading, base, logs, digest))
        from_root = reading.has_output and not self._public_url
        # The last such member is ours: the farm's metadata comes before it.
        return RenderedJob(body, entity_tag(body), body.rindex(_URL) + len(_URL) if from_root else 0)


def entity_tag(body: bytes) -> str:
    """Give a strong entity tag (RFC 9110, section 8.8.3): equal for equal bytes, across restarts too."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'
