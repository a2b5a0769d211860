"""Operations of single requests: jobs, files, links and the token."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from jobsvc.client.models import Job, Link, TokenInfo
from jobsvc.client.protocol.steps import Operation


def list_jobs(
    retries: int,
    *,
    status: Iterable[str] = (),
    updated_since: datetime | str | None = None,
    limit: int | None = None,
) -> Operation[None]:
    """Emit each Job of the list, newest first, at most `limit`."""
    raise NotImplementedError


def get_job(retries: int, job_id: str, *, fresh: bool = False) -> Operation[Job]:
    """Return a job; `fresh` reads the disk instead of the index. Raises JobNotFound."""
    raise NotImplementedError


def list_files(
    retries: int, job_id: str, *, output: Iterable[str] = (), want_digests: bool = False
) -> Operation[None]:
    """Emit each File of a job's outputs; `want_digests` requests their SHA-256. Raises NotReady."""
    raise NotImplementedError


def create_link(
    retries: int,
    base_url: str,
    job_id: str,
    *,
    expires_in: int = 3600,
    file: str | None = None,
    archive: str | None = None,
) -> Operation[Link]:
    """Create a download link."""
    raise NotImplementedError


def get_token_info(retries: int) -> Operation[TokenInfo]:
    """Return what the service knows of the token."""
    raise NotImplementedError
