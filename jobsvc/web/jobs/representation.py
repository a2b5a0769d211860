"""Render the JSON of `GET /api/jobs/{id}` and its entity tag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from jobsvc.domain.job import Details
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.headers.conditional import version_of
from jobsvc.web.jobs.addresses import download_url, job_base

_BEFORE_METADATA: Final = {
    "project_path": "projectPath",
    "started_at": "startedAt",
    "completed_at": "completedAt",
    "frames_done": "framesDone",
    "frames_total": "framesTotal",
    "attempt": "attempt",
}
"""Member names by the names of fields of Details. The log's path is not shown."""
_AFTER_METADATA: Final = {"phase": "phase", "error": "error", "source_status": "sourceStatus"}


def render_job(
    reading: JobSnapshot, base: str, logs: str | None = None, digest: bytes | None = None
) -> dict[str, Any]:
    """Return a job as a document with the member names of the API; what does not apply is omitted, not null.

    `base` is the prefix of the job's URLs; `digest` is the SHA-256 of the output version in the snapshot.
    """
    job, status, details = reading.job, reading.job.status, reading.job.details
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
    document |= _members(details, _BEFORE_METADATA)
    if (metadata := job.metadata_json) is not None:
        document["metadata"] = orjson.Fragment(metadata)
    document |= _members(details, _AFTER_METADATA)
    if logs is not None:
        document["logs"] = logs
    if (output := reading.output_version) is not None:
        document["downloadUrl"] = download_url(base, version_of(*output.parts()))
    if digest is not None:
        document["outputSha256"] = digest.hex()
    return document


def _members(details: Details, names: Mapping[str, str]) -> dict[str, Any]:
    return {name: value for field, name in names.items() if (value := getattr(details, field)) is not None}


class RenderedJob(NamedTuple):
    """The JSON of a job, ready to be sent."""

    body: bytes
    etag: str
    reference: int = 0
    """Offset in the body at which the absolute path of the output begins; 0 if there is none."""

    def parts_for(self, job_id: str, base: str | None) -> tuple[bytes | memoryview, ...]:
        """Return the body with a relative reference; `base` leads from the requested URL to the job.

        If `base` is None the body is returned unchanged. Parts are not copied, as many streams may send them.
        """
        if base is None or not self.reference:
            return (self.body,)
        view, end = memoryview(self.body), self.reference + len(job_base("", job_id))
        return view[: self.reference], base.encode(), view[end:]


_URL: Final = b'"downloadUrl":"'


class _CachedRepresentation(NamedTuple):
    """A rendered job and what it was rendered from."""

    reading: JobSnapshot
    logs: str | None
    digest: bytes | None
    shown: RenderedJob


class RepresentationCache:
    """Cache the rendered JSON of recently requested snapshots: polls request the same ones repeatedly."""

    def __init__(
        self,
        most: int = 32_768,
        cap: int = 64 << 20,
        *,
        digest_of: Callable[[JobSnapshot], bytes | None] | None = None,
        public_url: str = "",
    ) -> None:
        """Keep at most `most` jobs and `cap` bytes; a job without a log has about half a kilobyte.

        URLs start with `public_url`. `digest_of` returns the known SHA-256 of an output, or None; without it
        no digest is shown.
        """
        self._most = most
        self._cap = cap
        self._size = 0
        self._cached: dict[str, _CachedRepresentation] = {}
        self._digest_of = digest_of
        self._public_url = public_url

    def get(self, reading: JobSnapshot, logs: str | None) -> RenderedJob:
        """Return the rendered snapshot, with its log tail if `logs` is not None."""
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
        # Search from the end: the farm's metadata, which may contain such a member, comes before.
        return RenderedJob(body, entity_tag(body), body.rindex(_URL) + len(_URL) if from_root else 0)


def entity_tag(body: bytes) -> str:
    """Return a strong entity tag (RFC 9110, section 8.8.3): equal for equal bytes, also after a restart."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'
