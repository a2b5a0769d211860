"""Whatever the farm does, forced responses equal the disk immediately, and all others soon.

The suite runs a few hundred operations; JOBSVC_TEST_OPERATIONS=10000 runs that many in each mode.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobsvc.index.catalogue.missing_files import ABSENCE_GRACE_S
from tests.eventually import wait_until
from tests.index.random_farm_operations import ANCHOR, OWNERS, RandomFarm, visible_status
from tests.index.service_thread import NO_CACHE, ServiceThread
from tests.index.storage_faults import storage_faults

MAX_DELAY_S: Final = 1.5
"""Seconds; one and a half times max_age."""
JOBS: Final = ("a", "b", "c")
OPERATIONS: Final = sorted(name.removeprefix("do_") for name in dir(RandomFarm) if name.startswith("do_"))
REQUESTED_OPERATIONS: Final = int(os.environ.get("JOBSVC_TEST_OPERATIONS", "0"))

UNAVAILABLE: Final = "storage-unavailable"
OUTAGES: Final = ("gone", "empty", "made-again", "faults", "hangs", "another-device")

a_job = st.sampled_from(JOBS)
an_owner = st.sampled_from((None, None, *OWNERS))
some_operations = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), a_job), min_size=1, max_size=30 if REQUESTED_OPERATIONS else 8
)


class RandomOperations(RuleBasedStateMachine):
    """The service runs in a thread of its own, while the farm works in this one."""

    mode = "events"
    done = 0
    """Operations of all runs together."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[object] = []
        """What happened, to explain a failed check."""
        self.with_outages = False
        self.cleanup = ExitStack()
        self.base = Path(tempfile.mkdtemp())
        self.cleanup.callback(shutil.rmtree, self.base)
        self.faults = self.cleanup.enter_context(storage_faults())
        self.farm = RandomFarm(self.base, JOBS)
        self.service = ServiceThread(
            self.farm.root, self.base / "state", OWNERS, watch=self.mode, poll_interval=0.2
        )
        self.cleanup.callback(self.service.close)
        if self.mode == "events":
            wait_until(lambda: self.service.metric("jobsvc_watcher_healthy") == 1, 20)

    @initialize(outages=st.sampled_from((False, False, False, True)))
    def begin(self, *, outages: bool) -> None:
        """One run in four has unavailable storage and killed watchers."""
        self.with_outages = outages

    @rule(operations=some_operations)
    def perform_operations(self, operations: list[tuple[str, str]]) -> None:
        for operation, job_id in operations:
            self.farm.perform(operation, job_id)
        self._note(*operations)
        type(self).done += len(operations)

    @rule(job_id=a_job, owner=an_owner)
    def get_status_uncached(self, job_id: str, owner: str | None) -> None:
        shown = self._get_status(job_id, owner, forced=True)
        self._check(self.farm.accept(job_id, owner, shown), job_id, owner, shown)

    @rule(job_id=a_job, owner=an_owner)
    def download(self, job_id: str, owner: str | None) -> None:
        status, problem, _ = self.service.get(f"/api/jobs/{job_id}/download", owner)
        sent = "sent" if status == 200 else problem["code"]
        self._check(sent in self.farm.allowed_downloads(job_id, owner), job_id, owner, sent)

    @rule(job_id=a_job, owner=an_owner)
    def get_status_unchecked(self, job_id: str, owner: str | None) -> None:
        self._get_status(job_id, owner)

    @rule(owner=an_owner)
    def all_answers_become_current(self, owner: str | None) -> None:
        end = time.monotonic() + MAX_DELAY_S + (ABSENCE_GRACE_S if self.farm.has_grace_period else 0)
        wrong = dict.fromkeys(JOBS)
        while wrong:
            for job_id in tuple(wrong):
                asked_at = time.monotonic()
                shown = self._get_status(job_id, owner)
                passing = owner is None and self.farm.is_grace_period_answer(job_id, shown)
                if not passing and self.farm.accept(job_id, owner, shown):
                    del wrong[job_id]
                else:
                    self._check(asked_at < end, job_id, owner, shown)

    @precondition(lambda self: self.with_outages)
    @rule(way=st.sampled_from(OUTAGES), operations=some_operations, noticed=st.booleans())
    def storage_fails_and_recovers(
        self, way: str, operations: list[tuple[str, str]], *, noticed: bool
    ) -> None:
        """During the outage the last known states are served; afterwards the changes made meanwhile are
        noticed.
        """
        with self._storage_unavailable(way) as unready:
            self._note("away", way, noticed)
            if noticed and way != "hangs":
                wait_until(lambda: (self.service.not_ready_reason() or "").startswith(unready))
            for job_id in JOBS:
                self._check_last_known(job_id)
            if way in {"faults", "hangs"}:
                self.perform_operations(operations)
        self._note("back")
        self.all_answers_become_current(None)

    @precondition(lambda self: self.with_outages and self.mode == "events")
    @rule(operations=some_operations, number=st.sampled_from((signal.SIGKILL, signal.SIGSTOP)))
    def watcher_is_killed_or_stopped(self, operations: list[tuple[str, str]], number: signal.Signals) -> None:
        self._note(number.name)
        self.service.signal_watcher(number)
        self.perform_operations(operations)
        self.all_answers_become_current(None)
        self.service.signal_watcher(signal.SIGCONT)

    def teardown(self) -> None:
        with self.cleanup:
            self.all_answers_become_current(None)
            self._check(self._get_status(ANCHOR, None) is not None, ANCHOR)
            if not self.with_outages:
                self._check(self.service.metric("jobsvc_watcher_missed_events_total") == 0, "missed hints")

    @contextmanager
    def _storage_unavailable(self, way: str) -> Iterator[str]:
        """Make storage unavailable during the block; yield the start of the detail that /readyz reports."""
        with ExitStack() as back:
            begins = "The storage is unavailable: "
            if way == "hangs":
                back.enter_context(self.faults.hanging())
            elif way == "faults":
                back.enter_context(self.faults.failing(errno.EIO))
            elif way == "made-again":
                back.callback(self.farm.replace_root())
                begins += "the jobs root is empty"
            elif way == "another-device":
                begins += back.enter_context(_mounted_over(self.farm.root))
            else:
                _rename_root(self.farm.root, back, empty=way == "empty")
                begins += "the jobs root is empty" if way == "empty" else ""
            yield begins

    def _check_last_known(self, job_id: str) -> None:
        shown = self._get_status(job_id, None)
        since = {visible_status(None, truth) for truth in self.farm.possibly_cached(job_id)}
        self._check(shown in since or (shown == UNAVAILABLE and None in since), job_id, shown)

    def _get_status(self, job_id: str, owner: str | None, *, forced: bool = False) -> Any:
        """Request a status; return None for a 404."""
        status, document, cache = self.service.get(f"/api/jobs/{job_id}", owner, NO_CACHE if forced else {})
        self._note("asked", job_id, owner, forced, status, document.get("attempt"), cache)
        if status in {404, 503}:
            assert document["code"] == ("job-not-found" if status == 404 else UNAVAILABLE)
            return None if status == 404 else UNAVAILABLE
        assert status == 200, document
        known = (document["status"], document["progress"], document["updatedAt"])
        return *known, "downloadUrl" in document

    def _note(self, *what: object) -> None:
        self.history.append((round(time.monotonic(), 3), *what))

    def _check(self, held: bool, job_id: str, *what: object) -> None:  # noqa: FBT001 - an assertion with details
        allowed = self.farm.allowed_states(job_id) if job_id in JOBS else ""
        assert held, "\n".join(map(str, [*self.history[-60:], job_id, what, allowed]))


def _rename_root(root: Path, back: ExitStack, *, empty: bool) -> None:
    kept = root.with_name("unmounted")
    root.rename(kept)
    back.callback(kept.rename, root)
    if empty:
        root.mkdir()
        back.callback(root.rmdir)


@contextmanager
def _mounted_over(root: Path) -> Iterator[str]:
    """Mount another file system over the root; do nothing if that is not allowed."""
    may = os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = may and not subprocess.call(["mount", "-t", "tmpfs", "none", root])
    try:
        yield "the jobs root is on another device" if mounted else ""
    finally:
        if mounted:
            subprocess.check_call(["umount", "-l", root])


class RandomOperationsPolling(RandomOperations):
    mode = "poll"


@pytest.mark.timeout(REQUESTED_OPERATIONS // 2 + 120)
@pytest.mark.parametrize("machine", [RandomOperations, RandomOperationsPolling])
def test_responses_are_correct_whatever_the_farm_does(machine: type[RandomOperations]) -> None:
    done_before = machine.done
    chosen = settings(
        max_examples=100 if REQUESTED_OPERATIONS else 6,
        stateful_step_count=20 if REQUESTED_OPERATIONS else 12,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run: Callable[[], None] = lambda: run_state_machine_as_test(machine, settings=chosen)  # noqa: E731
    run()
    while machine.done - done_before < REQUESTED_OPERATIONS:
        run()
