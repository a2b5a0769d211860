"""Render the JSON of `GET /api/jobs/{id}` and its entity tag, for responses and for event streams.

Cached JSON never contains the owner, so it cannot reach another token: it is added for each response to an
`admin` token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from jobsvc.domain.access import Token, is_admin
from jobsvc.domain.job import Details, Status
from jobsvc.index.catalogue.freshness import CachedJob
from jobsvc.index.queries.log_tail_cache import LogTailCache
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.jobs.output_members import main_url, render_outputs
from jobsvc.web.jobs.urls import job_base


def _by_position(names: Mapping[str, str]) -> tuple[tuple[int, str], ...]:
    """Return pairs of a position in Details and a member name, from the names of both."""
    return tuple((Details._fields.index(field), name) for field, name in names.items())


_BEFORE_METADATA: Final = _by_position(
    {
        "project_path": "projectPath",
        "started_at": "startedAt",
        "completed_at": "completedAt",
        "estimated_completion_at": "estimatedCompletionAt",
        "frames_done": "framesDone",
        "frames_total": "framesTotal",
        "attempt": "attempt",
    }
)
_AFTER_METADATA: Final = _by_position({"phase": "phase", "error": "error", "source_status": "sourceStatus"})
"""The log's path is not shown."""


def render_job(
    snapshot: JobSnapshot,
    base: str,
    logs: str | None = None,
    digest: bytes | None = None,
    *,
    stalled: bool = False,
    with_outputs: bool = False,
) -> dict[str, Any]:
    """Return a job as a document with the member names of the API; what does not apply is omitted, not null.

    `base` is the prefix of the job's URLs; `digest` is the SHA-256 of the output version in the snapshot.
    `with_outputs`: with the outputs, which lists of jobs do not have.
    """
    job, status, details = snapshot.job, snapshot.job.status, snapshot.job.details
    document: dict[str, Any] = {
        "id": job.id,
        "status": str(status),
        "done": status.final,
        "progress": job.progress,
        "projectPath": None,
        "outputPath": job.output_path,
        "createdAt": job.created_at,
        "updatedAt": job.updated_at,
    }
    if stalled:
        document["stalled"] = True
    _add_members(document, details, _BEFORE_METADATA)
    if (metadata := job.metadata_json) is not None:
        document["metadata"] = orjson.Fragment(metadata)
    _add_members(document, details, _AFTER_METADATA)
    if logs is not None:
        document["logs"] = logs
    if (url := main_url(snapshot, base)) is not None:
        document["downloadUrl"] = url
    if digest is not None:
        document["outputSha256"] = digest.hex()
    if with_outputs and status is Status.COMPLETED and (outputs := render_outputs(snapshot, base)):
        document["outputs"] = outputs
    return document


def _add_members(document: dict[str, Any], details: Details, members: Iterable[tuple[int, str]]) -> None:
    for position, name in members:
        if (value := details[position]) is not None:
            document[name] = value


class RenderedJob(NamedTuple):
    """The JSON of a job, ready to be sent."""

    body: bytes
    etag: str
    references: tuple[int, ...] = ()
    """Offsets in the body at which the absolute paths of outputs begin; none if there is a public URL."""

    def parts_for(self, job_id: str, base: str | None) -> tuple[bytes | memoryview, ...]:
        """Return the body with relative references; `base` leads from the requested URL to the job.

        If `base` is None the body is returned unchanged. Parts are not copied, as many streams may send them.
        """
        if base is None or not self.references:
            return (self.body,)
        view, length, prefix = memoryview(self.body), len(job_base("", job_id)), base.encode()
        parts: list[bytes | memoryview] = []
        end = 0
        for reference in self.references:
            parts += (view[end:reference], prefix)
            end = reference + length
        return (*parts, view[end:])

    def for_token(self, token: Token, owner: str) -> RenderedJob:
        """Return the job as the token sees it: for `admin`, with its owner and a different entity tag."""
        if not is_admin(token):
            return self
        # Not computed from the body, which can have 1 MiB and would be hashed for each response.
        etag = entity_tag(self.etag.encode() + owner.encode("utf-8", "surrogatepass"))
        return self._replace(body=add_owner(self.body, owner), etag=etag)


def add_owner(job: bytes, owner: str) -> bytes:
    """Return a job's JSON object with its owner as the last member; for `admin` tokens only."""
    return b'%b,"owner":%b}' % (job[:-1], orjson.dumps(owner))


def entity_tag(body: bytes) -> str:
    """Return a strong entity tag (RFC 9110, section 8.8.3): equal for equal bytes, also after a restart."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


_URL: Final = b'"downloadUrl":"'


class _CachedRepresentation(NamedTuple):
    """A rendered job and what it was rendered from."""

    snapshot: JobSnapshot
    logs: str | None
    digest: bytes | None
    stalled: bool
    rendered: RenderedJob

    def is_of(self, snapshot: JobSnapshot, logs: str | None, digest: bytes | None, *, stalled: bool) -> bool:
        """Return whether it was rendered from these."""
        return (
            self.snapshot is snapshot
            and self.logs is logs
            and self.digest == digest
            and self.stalled is stalled
        )


class RepresentationCache:
    """Cache the rendered JSON of recently requested snapshots: polls request the same ones repeatedly."""

    def __init__(
        self,
        max_jobs: int = 32_768,
        max_bytes: int = 64 << 20,
        *,
        digest_of: Callable[[JobSnapshot], bytes | None] | None = None,
        stalled: Container[str] = (),
        public_url: str = "",
    ) -> None:
        """Keep at most so many jobs and bytes; a job without a log has about half a kilobyte.

        URLs start with `public_url`. `stalled` contains the ids of stalled jobs. `digest_of` returns the
        known SHA-256 of an output, or None; without it no digest is shown.
        """
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._size = 0
        self._cached: dict[str, _CachedRepresentation] = {}
        self._digest_of = digest_of
        self._stalled = stalled
        self._public_url = public_url

    def get(self, snapshot: JobSnapshot, logs: str | None) -> RenderedJob:
        """Return the rendered snapshot, with its log tail if `logs` is not None."""
        known, stalled = self._cached.get(snapshot.job.id), snapshot.job.id in self._stalled
        digest = None if self._digest_of is None or not snapshot.has_output else self._digest_of(snapshot)
        if known is not None and known.is_of(snapshot, logs, digest, stalled=stalled):
            return known.rendered
        if known is not None:
            self._size -= len(known.rendered.body)
        rendered = self._render(snapshot, logs, digest, stalled=stalled)
        if len(self._cached) >= self._max_jobs or self._size > self._max_bytes:
            self._cached.clear()
            self._size = 0
        self._size += len(rendered.body)
        self._cached[snapshot.job.id] = _CachedRepresentation(snapshot, logs, digest, stalled, rendered)
        return rendered

    def _render(
        self, snapshot: JobSnapshot, logs: str | None, digest: bytes | None, *, stalled: bool
    ) -> RenderedJob:
        base = job_base(self._public_url, snapshot.job.id)
        document = render_job(snapshot, base, logs, digest, stalled=stalled, with_outputs=True)
        body = orjson.dumps(document)
        urls = 0 if self._public_url else ("downloadUrl" in document) + len(document.get("outputs", ()))
        return RenderedJob(body, entity_tag(body), _last_references(body, urls))


def _last_references(body: bytes, count: int) -> tuple[int, ...]:
    """Return the offsets of the last `count` URLs, in order.

    The farm's metadata, which may contain such members, comes before them.
    """
    found: list[int] = []
    end = len(body)
    for _ in range(count):
        end = body.rindex(_URL, 0, end)
        found.append(end + len(_URL))
    return tuple(reversed(found))


class PushRenderer:
    """Render jobs for event streams and long polls, once for all clients notified of the same change."""

    def __init__(self, tails: LogTailCache, representations: RepresentationCache) -> None:
        self._tails = tails
        self._representations = representations
        self._in_progress: dict[tuple[str, FileVersion], asyncio.Task[RenderedJob]] = {}

    async def render(self, snapshot: JobSnapshot, token: Token) -> RenderedJob:
        """Render a snapshot as the token sees it; a failed job with its log tail, if storage responds."""
        if snapshot.job.status is Status.FAILED:
            rendered = await self._render_failed(snapshot)
        else:
            rendered = self._representations.get(snapshot, None)
        return rendered.for_token(token, snapshot.job.owner)

    async def _render_failed(self, snapshot: JobSnapshot) -> RenderedJob:
        key = (snapshot.job.id, snapshot.record_version)
        task = self._in_progress.get(key)
        if task is None:
            task = self._in_progress[key] = asyncio.create_task(self._with_log(snapshot))
            task.add_done_callback(lambda _done: self._in_progress.pop(key))
        return await asyncio.shield(task)

    async def _with_log(self, snapshot: JobSnapshot) -> RenderedJob:
        _, logs = await self._tails.with_tail(CachedJob(snapshot, age=0.0, stale=False))
        return self._representations.get(snapshot, logs)
