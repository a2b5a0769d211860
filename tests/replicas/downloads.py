"""Clients that download large outputs, resume after each interruption, and compare every byte."""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from multidict import CIMultiDict

from jobsvc.client import Client, ConnectionFailed, JobsvcError, NotVerified, Problem
from tests.clients.raw_http import Connection, IncompleteAnswer, request
from tests.deploy.reverse_proxies import ReverseProxy
from tests.replicas.group import ProxiedService
from tests.replicas.proxied_client import FROM_PROXY
from tests.replicas.report import Report

STALLED_S: Final = 30.0
_RETRY_S: Final = 0.5
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Film:
    """A completed job and the bytes of its output."""

    job_id: str
    data: bytes


class WrongBytes(Exception):
    """A response has other bytes than the file."""


class ResumingClient:
    """Downloads one film after the other, with Range and If-Range after each interruption."""

    def __init__(self, report: Report, service: ProxiedService, films: list[Film]) -> None:
        self._report, self._service, self._films = report, service, films

    async def run(self) -> None:
        """Download until cancelled."""
        while True:
            await self._download(random.choice(self._films))  # noqa: S311 - no secret
            self._report.count("downloads: complete")

    async def _download(self, film: Film) -> None:
        self._received, self._etag = 0, ""
        while self._received < len(film.data):
            try:
                await self._continue(film)
            except WrongBytes as exc:
                self._report.fault("download: wrong bytes", f"{film.job_id} at {self._received}: {exc}")
                return
            except TimeoutError:
                self._report.fault("download: no byte for a long time", f"{film.job_id} at {self._received}")
            except (OSError, IncompleteAnswer):
                self._report.count("downloads: interrupted")
            if self._received < len(film.data):
                await asyncio.sleep(random.random() * _RETRY_S)  # noqa: S311 - no secret

    async def _continue(self, film: Film) -> None:
        fields = []
        if self._received:
            fields = [("Range", f"bytes={self._received}-"), ("If-Range", self._etag)]
        async with self._service.connect() as connection:
            target = f"/api/jobs/{film.job_id}/download"
            connection.send(request("GET", target, fields, token=self._service.token))
            async with asyncio.timeout(STALLED_S):
                _, status, headers = await connection.head()
            self._report.count(f"downloads: {status}")
            if status in {200, 206}:
                self._check_head(film, status, headers)
                await self._receive(film, connection)
            elif status == 429:
                await asyncio.sleep(min(float(headers.get("Retry-After", "1")), 5))
            elif status not in FROM_PROXY:
                self._report.fault(f"download: status {status}", film.job_id)

    def _check_head(self, film: Film, status: int, headers: CIMultiDict[str]) -> None:
        """Raise WrongBytes if the response is not what is left of the film, of the same version."""
        size, etag = len(film.data), headers.get("ETag", "")
        if self._received and (status, etag) != (206, self._etag):
            raise WrongBytes(f"{status} {etag} to a range of {self._etag}")
        if not self._received and status != 200:
            raise WrongBytes(f"{status} to a request without a range")
        if status == 206:
            match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
            if match is None or tuple(map(int, match.groups())) != (self._received, size - 1, size):
                raise WrongBytes(headers.get("Content-Range", "no Content-Range"))
        if headers.get("Content-Length") != str(size - self._received):
            raise WrongBytes(f"Content-Length {headers.get('Content-Length')}")
        self._etag = etag

    async def _receive(self, film: Film, connection: Connection) -> None:
        while self._received < len(film.data):
            async with asyncio.timeout(STALLED_S):
                data = await connection.reader.read(1 << 18)
            if not data:
                raise IncompleteAnswer(None)
            if film.data[self._received : self._received + len(data)] != data:
                raise WrongBytes(f"{len(data)} bytes differ")
            self._received += len(data)
            self._report.count("downloads: bytes", len(data))


def download_with_client(
    report: Report, proxy: ReverseProxy, token: str | None, film: Film, folder: Path, deadline: float
) -> None:
    """Download a film again and again with jobsvc.client until `deadline` (monotonic); blocks."""
    target, certificate = folder / f"{film.job_id}.mp4", str(proxy.folder / "certificate")
    with Client(f"https://localhost:{proxy.port}", token, ca_file=certificate) as client:
        while time.monotonic() < deadline:
            try:
                client.download(film.job_id, target)
            except (ConnectionFailed, NotVerified, Problem) as exc:  # the next call continues
                report.count(f"jobsvc.client: {type(exc).__name__}")
                time.sleep(1)
            except JobsvcError as exc:
                report.fault("jobsvc.client: download failed", repr(exc))
            else:
                report.count("jobsvc.client: complete downloads")
                if target.read_bytes() != film.data:
                    report.fault("jobsvc.client: wrong bytes", target)
                target.unlink()
