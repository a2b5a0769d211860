"""Whatever is done to the job directories, forced answers equal the disk at once, and all others soon."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from jobsvc.index.live import Index, Watch
from jobsvc.storage.disk import Disk
from jobsvc.storage.reader import JobsRoot
from tests.index.chaos import ANCHOR, Chaos, ask
from tests.waiting import wait_until

SOON: Final = 1.5
"""Seconds: half of one more than max_age."""
JOBS: Final = ("a", "b", "c")
OPERATIONS: Final = sorted(name.removeprefix("do_") for name in dir(Chaos) if name.startswith("do_"))


class Truth(RuleBasedStateMachine):
    """The index lives on a loop in a thread of its own, while the farm works here."""

    mode = Watch.EVENTS

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp())
        self.chaos = Chaos(self.base, JOBS)
        self.loop = asyncio.new_event_loop()
        self.thread = ThreadPoolExecutor(1)
        self.thread.submit(self.loop.run_forever)
        self.disk = Disk()
        self.index = Index(self.disk, JobsRoot(self.chaos.root), watch=self.mode, poll_interval=0.2)
        self.run(self.index.start())
        self.run(asyncio.wait_for(self.index.ready.wait(), 10))
        if self.mode is Watch.EVENTS:
            wait_until(lambda: self.index.covered)

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    @rule(
        operations=st.lists(
            st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(JOBS)), min_size=1, max_size=6
        )
    )
    def work(self, operations: list[tuple[str, str]]) -> None:
        for operation, job_id in operations:
            self.chaos.do(operation, job_id)

    @rule(job_id=st.sampled_from(JOBS))
    def ask_the_disk(self, job_id: str) -> None:
        seen = self.run(ask(self.index.freshness, job_id, force=True))
        assert self.chaos.right(job_id, seen), (seen, self.chaos.allowed(job_id))

    @rule(job_id=st.sampled_from(JOBS))
    def ask_without_looking_at_the_answer(self, job_id: str) -> None:
        self.run(ask(self.index.freshness, job_id))

    @rule()
    def all_is_soon_right(self) -> None:
        end = time.monotonic() + SOON
        wrong = set(JOBS)
        while wrong and time.monotonic() < end:
            wrong = {job_id for job_id in wrong if self._seen(job_id) not in self.chaos.allowed(job_id)}
        assert not wrong, [(job_id, self._seen(job_id), self.chaos.allowed(job_id)) for job_id in wrong]
        for job_id in JOBS:
            assert self.chaos.right(job_id, self._seen(job_id))

    def _seen(self, job_id: str) -> Any:
        return self.run(ask(self.index.freshness, job_id))

    def teardown(self) -> None:
        self.all_is_soon_right()
        assert self.run(ask(self.index.freshness, ANCHOR)) is not None
        assert self.index.figures.missed == 0
        self.run(self.index.stop())
        self.disk.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.shutdown()
        self.loop.close()
        shutil.rmtree(self.base)


class TruthByPolling(Truth):
    mode = Watch.POLL


@pytest.mark.parametrize("machine", [Truth, TruthByPolling])
def test_answers_are_true_whatever_the_farm_does(machine: type[Truth]) -> None:
    runs = int(os.environ.get("JOBSVC_TRUTH_RUNS", "6"))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
