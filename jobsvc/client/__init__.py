"""HTTP client of the service. `Client` needs the standard library alone; `AsyncClient` uses aiohttp.

from jobsvc.client import Client

client = Client("https://render.example.com", token)
(job,) = client.wait("opening-title-0042", timeout=3600)
client.download(job.id, "title.mp4")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobsvc.client.client import Client
from jobsvc.client.errors import (
    BadConfiguration,
    ConnectionFailed,
    Corrupt,
    DownloadError,
    FileExists,
    JobNotFound,
    JobsvcError,
    NotReady,
    NotVerified,
    OutputMissing,
    OutputReplaced,
    Problem,
    RateLimited,
    ServiceUnavailable,
    SyncFailed,
    Unauthorized,
    WaitTimeout,
)
from jobsvc.client.models import (
    Downloaded,
    File,
    Job,
    JobChanged,
    JobRemoved,
    Link,
    LogLines,
    LogReset,
    Output,
    Progress,
    TokenInfo,
)

if TYPE_CHECKING:
    from jobsvc.client.async_client import AsyncClient

__all__ = [
    "AsyncClient",
    "BadConfiguration",
    "Client",
    "ConnectionFailed",
    "Corrupt",
    "DownloadError",
    "Downloaded",
    "File",
    "FileExists",
    "Job",
    "JobChanged",
    "JobNotFound",
    "JobRemoved",
    "JobsvcError",
    "Link",
    "LogLines",
    "LogReset",
    "NotReady",
    "NotVerified",
    "Output",
    "OutputMissing",
    "OutputReplaced",
    "Problem",
    "Progress",
    "RateLimited",
    "ServiceUnavailable",
    "SyncFailed",
    "TokenInfo",
    "Unauthorized",
    "WaitTimeout",
]


def __getattr__(name: str) -> object:
    """Import AsyncClient, and with it aiohttp, on first use (PEP 562)."""
    if name == "AsyncClient":
        from jobsvc.client.async_client import AsyncClient  # noqa: PLC0415 - see above

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
