"""Clients that poll the status of jobs at a fixed rate, and check how old each response is."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final, NamedTuple

from tests.clients.raw_http import Answer
from tests.replicas.group import ProxiedService
from tests.replicas.proxied_client import ProxiedClient
from tests.replicas.render_farm import STEPS, Rendered, RenderFarm
from tests.replicas.report import Report

MAX_AGE_S: Final = 1.0
"""Default of --max-age: how old a status can be."""
_FINISHED_SHARE: Final = 0.3
"""Of the polls."""


class _Known(NamedTuple):
    """A representation of a job that was received."""

    etag: str
    step: int


class Pollers:
    """Keep-alive connections that together send a number of polls a second."""

    def __init__(self, farm: RenderFarm, report: Report) -> None:
        self._farm, self._report = farm, report
        self._random = random.Random(19)  # noqa: S311 - no secret
        self._known: dict[str, _Known] = {}
        """By job."""

    async def run(self, services: list[ProxiedService], rate: float) -> None:
        """Poll until cancelled, over one connection to each, with `rate` polls a second together."""
        async with asyncio.TaskGroup() as tasks:
            for service in services:
                client = ProxiedClient(service, self._report, "polls")
                tasks.create_task(self._poll_regularly(client, len(services) / rate))

    async def _poll_regularly(self, client: ProxiedClient, interval: float) -> None:
        next_at = time.monotonic() + self._random.random() * interval
        try:
            while True:
                await asyncio.sleep(max(next_at - time.monotonic(), 0))
                next_at = max(next_at + interval, time.monotonic() - 1)
                await self._poll(client)
        finally:
            client.close()

    async def _poll(self, client: ProxiedClient) -> None:
        job = self._choose()
        known = self._known.get(job.job_id) if self._random.random() < 0.5 else None
        fields = () if known is None else [("If-None-Match", known.etag)]
        sent_at = time.monotonic()
        answer = await client.get(f"/api/jobs/{job.job_id}", fields)
        self._report.highest("polls: longest, s", time.monotonic() - sent_at)
        if answer is None or answer.status == 429:
            return
        if (step := self._step(job, known, answer)) is None:
            self._report.fault("poll: wrong response", f"{job.job_id}: {answer}")
        else:
            self._check_age(job, step, sent_at, answer)

    def _choose(self) -> Rendered:
        jobs = list(self._farm.unfinished)
        if not jobs or self._random.random() < _FINISHED_SHARE:
            jobs = list(self._farm.jobs.values())
        return self._random.choice(jobs)

    def _step(self, job: Rendered, known: _Known | None, answer: Answer) -> int | None:
        """Return the number of the state in a response; None if the response is wrong."""
        if answer.status == 304:
            return known.step if known and answer.headers.get("ETag") == known.etag else None
        if answer.status != 200:
            return None
        document = answer.json()
        step = int(document["metadata"]["step"])
        if document["id"] != job.job_id or step >= STEPS:
            return None
        if step < len(job.states) and document["status"] != job.states[step].status:
            return None
        self._known[job.job_id] = _Known(answer.headers["ETag"], step)
        return step

    def _check_age(self, job: Rendered, step: int, sent_at: float, answer: Answer) -> None:
        if step < job.oldest_step(sent_at):
            self._report.count("polls: showed a state that was replaced before the request")
        if step < job.oldest_step(sent_at - MAX_AGE_S):
            late = sent_at - job.states[step + 1].done_at
            detail = f"{job.job_id}: step {step} was replaced {late:.2f} s before the request; {answer}"
            self._report.fault("poll: a state older than --max-age", detail)
