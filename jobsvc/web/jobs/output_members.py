"""Render the outputs of a job for its status: a small list, without the files that are in them."""

from __future__ import annotations

from typing import Any

from jobsvc.domain.outputs import Output, OutputKind, Role
from jobsvc.domain.timestamp import format_timestamp, timestamp_at
from jobsvc.storage.jobs.output_states import OutputState
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.web.headers.conditional import version_id
from jobsvc.web.headers.content_headers import content_type
from jobsvc.web.jobs.urls import archive_url, download_url, file_url


def main_url(snapshot: JobSnapshot, base: str) -> str | None:
    """Return the URL of the main output; None if there is none. `base` is the prefix of the job's URLs."""
    version = snapshot.output_version
    if version is not None:
        return download_url(base, version_id(*version.parts()))
    return download_url(base) if snapshot.has_output else None


def render_outputs(snapshot: JobSnapshot, base: str) -> list[dict[str, Any]]:
    """Return the outputs that exist, in the order of the record."""
    return [_render(output, state, base) for output, state in snapshot.existing_outputs()]


def _render(output: Output, state: OutputState, base: str) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": output.name,
        "role": str(output.role),
        "kind": str(state.kind),
        "downloadUrl": _url(output, state, base),
    }
    if state.kind is OutputKind.FILE:
        name = output.path.rpartition("/")[2]
        return document | {"size": state.version.size, "contentType": content_type(name)}
    # The time makes a change of the directory a change of the job's representation.
    return document | {"modifiedAt": format_timestamp(timestamp_at(state.version.mtime_ns // 1000))}


def _url(output: Output, state: OutputState, base: str) -> str:
    version = version_id(*state.version.parts()) if state.kind is OutputKind.FILE else None
    if output.role is Role.MAIN:
        return download_url(base, version)
    return archive_url(base, output.name) if version is None else file_url(base, output.name, version)
