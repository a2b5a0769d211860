"""Clients of event streams that reconnect until they are told to stop, and check what they were sent."""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tests.clients.raw_http import IncompleteAnswer
from tests.clients.sse_client import Event, EventStream, open_event_stream
from tests.programs.service_runner import Service
from tests.replicas.proxied_client import FROM_PROXY
from tests.replicas.render_farm import FINAL, Rendered, RenderFarm
from tests.replicas.report import Report

SILENCE_S: Final = 45.0
"""Comments come every 15 s."""
_RETRY_S: Final = 0.5
"""Longest pause before a stream is opened again, at random."""

Wait = Callable[[], Awaitable[Any]]


class StreamClient(ABC):
    """Opens one stream again and again from its last position."""

    kind: str

    def __init__(self, farm: RenderFarm, report: Report, service: Service) -> None:
        self.farm, self.report, self.service = farm, report, service
        self.last_event_id: str | None = None

    @abstractmethod
    def receive(self, event: Event) -> None:
        """Take one event."""

    @property
    def is_complete(self) -> bool:
        """Whether the last event was the last one that there will be."""
        return False

    async def follow(self, target: str) -> bool:
        """Read a stream to its end; return whether nothing more will come.

        How it ends does not tell: Caddy 2.6 ends the response properly when a replica has died.
        """
        try:
            async with open_event_stream(self.service, target, last_event_id=self.last_event_id) as stream:
                self.report.count(f"{self.kind}: {stream.status}")
                if stream.status == 200:
                    await self._read(stream)
                elif stream.status not in {204, 429, *FROM_PROXY}:
                    self.report.fault(f"{self.kind}: status {stream.status}", target)
                return stream.status == 204 or self.is_complete
        except TimeoutError:
            self.report.fault(f"{self.kind}: no byte for a long time", target)
        except (OSError, IncompleteAnswer):
            self.report.count(f"{self.kind}: connections lost")
        return False

    async def _read(self, stream: EventStream) -> None:
        try:
            while (event := await stream.next(SILENCE_S)) is not None:
                self.receive(event)
        finally:
            self.last_event_id = stream.last_event_id or self.last_event_id
        self.report.count(f"{self.kind}: " + ("complete" if self.is_complete else "cut"))

    async def pause(self) -> None:
        await asyncio.sleep(random.random() * _RETRY_S)  # noqa: S311 - no secret

    def record_delay(self, job: Rendered, step: int) -> None:
        """Record how long after the rename the final state arrived, if it was the newest one."""
        if step == len(job.states) - 1 and job.is_final:
            self.report.highest(
                f"{self.kind}: longest delay of a final state, s", time.monotonic() - job.final_at
            )


class AllJobsClient(StreamClient):
    """Follows all jobs, as a dashboard does."""

    kind = "streams of all jobs"

    def __init__(self, farm: RenderFarm, report: Report, service: Service) -> None:
        super().__init__(farm, report, service)
        self.steps: dict[str, int] = {}
        """Newest known state by job."""
        self._listed: set[str] = set()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._listed = set()
            await self.follow("/api/events")
            await self.pause()

    def receive(self, event: Event) -> None:
        document = event.json()
        if event.name == "present":
            self.report.count(f"{self.kind}: complete listings")
            for job_id in set(self.steps) - self._listed:
                self.report.fault(f"{self.kind}: a job is missing in a listing", job_id)
        elif event.name == "removed":
            self.report.fault(f"{self.kind}: a job that exists was removed", event.data)
        elif (job := self.farm.jobs.get(document["id"])) is not None:
            self._listed.add(job.job_id)
            self._take(job, int(document["metadata"]["step"]))

    def _take(self, job: Rendered, step: int) -> None:
        known = self.steps.get(job.job_id, -1)
        if step < known:
            self.report.count(f"{self.kind}: went back to an older state")
        if step > known >= 0:
            self.record_delay(job, step)
        self.steps[job.job_id] = step

    def missed(self) -> list[str]:
        """Return the jobs whose final state is not what this client knows."""
        return [
            job.job_id
            for job in list(self.farm.jobs.values())
            if not job.is_final or self.steps.get(job.job_id) != len(job.states) - 1
        ]


class _OneJobClient(StreamClient):
    """Follows one job after the other, each until it is final."""

    path: str

    def __init__(self, farm: RenderFarm, report: Report, service: Service) -> None:
        super().__init__(farm, report, service)
        self.job: Rendered | None = None

    async def run(self) -> None:
        """Follow job after job until all are final."""
        while unfinished := list(self.farm.unfinished):
            self.job = random.choice(unfinished)  # noqa: S311 - no secret
            self.last_event_id = None
            self.begin()
            while not await self.follow(f"/api/jobs/{self.job.job_id}/{self.path}"):
                await self.pause()
            self.report.count(f"{self.kind}: jobs followed to their end")
            if not self.job.is_final:  # the farm has renamed the record, and not yet remembered it
                await asyncio.sleep(1)
            self.check(self.job)

    @abstractmethod
    def begin(self) -> None:
        """Forget the job before."""

    @abstractmethod
    def check(self, job: Rendered) -> None:
        """Check what was received of a job that is final."""


class JobClient(_OneJobClient):
    """Follows the states of jobs."""

    kind, path = "streams of one job", "events"

    @property
    def is_complete(self) -> bool:
        return self._status in FINAL

    def begin(self) -> None:
        self._step, self._status = -1, ""

    def receive(self, event: Event) -> None:
        assert self.job is not None
        if event.name != "job":
            self.report.fault(f"{self.kind}: event {event.name}", event.data)
            return
        document = event.json()
        step = int(document["metadata"]["step"])
        if step < self._step:
            self.report.count(f"{self.kind}: went back to an older state")
        if step > self._step >= 0:
            self.record_delay(self.job, step)
        self._step, self._status = step, document["status"]

    def check(self, job: Rendered) -> None:
        if self._status not in FINAL or self._status != job.states[-1].status:
            self.report.fault(f"{self.kind}: final state missed", f"{job.job_id}: {self._status}")


class LogClient(_OneJobClient):
    """Follows the logs of jobs."""

    kind, path = "followed logs", "logs?follow=1"

    @property
    def is_complete(self) -> bool:
        return bool(self._status)

    def begin(self) -> None:
        self._text, self._status = "", ""

    def receive(self, event: Event) -> None:
        assert self.job is not None
        if event.name == "log":
            self._text += f"{event.data}\n"
        elif event.name == "part":
            self._text += event.data
        elif event.name == "reset":
            self._text = ""
            self.report.fault(f"{self.kind}: began again", f"{self.job.job_id}: {event.data}")
        elif event.name == "end":
            self._status = event.json()["status"]
        else:
            self.report.fault(f"{self.kind}: event {event.name}", f"{self.job.job_id}: {event.data}")

    def check(self, job: Rendered) -> None:
        if self._text.encode() != job.log:
            self.report.fault(f"{self.kind}: not the log", f"{job.job_id}: {self._text!r}")
        if self._status not in {"", job.states[-1].status}:  # empty: cut after the last line, then 204
            self.report.fault(f"{self.kind}: final state missed", f"{job.job_id}: {self._status}")
