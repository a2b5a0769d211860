"""Whatever is done to the job directories, forced answers equal the disk at once, and all others soon.

A few hundred operations in the suite; JOBSVC_TRUTH_OPERATIONS=10000 asks for as many, in each mode.
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
from tests.index.random_farm_operations import ANCHOR, OWNERS, Chaos, shown_to
from tests.index.service_thread import FORCED, Whole
from tests.index.storage_faults import weather

SOON: Final = 1.5
"""Seconds: half of one more than max_age."""
JOBS: Final = ("a", "b", "c")
OPERATIONS: Final = sorted(name.removeprefix("do_") for name in dir(Chaos) if name.startswith("do_"))
WANTED: Final = int(os.environ.get("JOBSVC_TRUTH_OPERATIONS", "0"))

AWAY: Final = "storage-unavailable"
WAYS: Final = ("gone", "empty", "made-again", "faults", "hangs", "another-device")

a_job = st.sampled_from(JOBS)
an_owner = st.sampled_from((None, None, *OWNERS))
labour = st.lists(st.tuples(st.sampled_from(OPERATIONS), a_job), min_size=1, max_size=30 if WANTED else 8)


class Truth(RuleBasedStateMachine):
    """The service lives in a thread of its own, while the farm works here."""

    mode = "events"
    done = 0
    """Operations, of all runs together."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[object] = []
        """What happened, for whoever is to find out why something was wrong."""
        self.rough = False
        self.open = ExitStack()
        self.base = Path(tempfile.mkdtemp())
        self.open.callback(shutil.rmtree, self.base)
        self.weather = self.open.enter_context(weather())
        self.chaos = Chaos(self.base, JOBS)
        self.whole = Whole(self.chaos.root, self.base / "state", OWNERS, watch=self.mode, poll_interval=0.2)
        self.open.callback(self.whole.close)
        if self.mode == "events":
            wait_until(lambda: self.whole.metric("jobsvc_watcher_healthy") == 1, 20)

    @initialize(rough=st.sampled_from((False, False, False, True)))
    def begin(self, *, rough: bool) -> None:
        """One run in four has storage that goes away and watchers that die."""
        self.rough = rough

    @rule(operations=labour)
    def work(self, operations: list[tuple[str, str]]) -> None:
        for operation, job_id in operations:
            self.chaos.do(operation, job_id)
        self._note(*operations)
        type(self).done += len(operations)

    @rule(job_id=a_job, owner=an_owner)
    def ask_the_disk(self, job_id: str, owner: str | None) -> None:
        shown = self._shown(job_id, owner, forced=True)
        self._must(self.chaos.right(job_id, owner, shown), job_id, owner, shown)

    @rule(job_id=a_job, owner=an_owner)
    def download(self, job_id: str, owner: str | None) -> None:
        status, problem, _ = self.whole.get(f"/api/jobs/{job_id}/download", owner)
        sent = "sent" if status == 200 else problem["code"]
        self._must(sent in self.chaos.sent(job_id, owner), job_id, owner, sent)

    @rule(job_id=a_job, owner=an_owner)
    def ask_without_looking_at_the_answer(self, job_id: str, owner: str | None) -> None:
        self._shown(job_id, owner)

    @rule(owner=an_owner)
    def all_is_soon_right(self, owner: str | None) -> None:
        end = time.monotonic() + SOON + (ABSENCE_GRACE_S if self.chaos.bridges_any else 0)
        wrong = dict.fromkeys(JOBS)
        while wrong:
            for job_id in tuple(wrong):
                shown = self._shown(job_id, owner)
                passing = owner is None and self.chaos.is_bridged(job_id, shown)
                if not passing and self.chaos.right(job_id, owner, shown):
                    del wrong[job_id]
                else:
                    self._must(time.monotonic() < end, job_id, owner, shown)

    @precondition(lambda self: self.rough)
    @rule(way=st.sampled_from(WAYS), operations=labour, noticed=st.booleans())
    def storage_goes_and_comes_back(
        self, way: str, operations: list[tuple[str, str]], *, noticed: bool
    ) -> None:
        """Until it is back the last known answers stay; what the farm did meanwhile is then seen as ever."""
        with self._away(way) as unready:
            self._note("away", way, noticed)
            if noticed and way != "hangs":
                wait_until(lambda: (self.whole.unready() or "").startswith(unready), 3)
            for job_id in JOBS:
                self._must_be_last_known(job_id)
            if way in {"faults", "hangs"}:
                self.work(operations)
        self._note("back")
        self.all_is_soon_right(None)

    @precondition(lambda self: self.rough and self.mode == "events")
    @rule(operations=labour, number=st.sampled_from((signal.SIGKILL, signal.SIGSTOP)))
    def watcher_dies_or_sleeps(self, operations: list[tuple[str, str]], number: signal.Signals) -> None:
        self._note(number.name)
        self.whole.tell_watcher(number)
        self.work(operations)
        self.all_is_soon_right(None)
        self.whole.tell_watcher(signal.SIGCONT)

    def teardown(self) -> None:
        with self.open:
            self.all_is_soon_right(None)
            self._must(self._shown(ANCHOR, None) is not None, ANCHOR)
            if not self.rough:
                self._must(self.whole.metric("jobsvc_watcher_missed_events_total") == 0, "missed hints")

    @contextmanager
    def _away(self, way: str) -> Iterator[str]:
        """Take the storage away for the length of a block; tells how /readyz begins to say so."""
        with ExitStack() as back:
            begins = "The storage is away: "
            if way == "hangs":
                back.enter_context(self.weather.hanging())
            elif way == "faults":
                back.enter_context(self.weather.failing(errno.EIO))
            elif way == "made-again":
                back.callback(self.chaos.make_again())
                begins += "the root is empty"
            elif way == "another-device":
                begins += back.enter_context(_covered(self.chaos.root))
            else:
                _gone(self.chaos.root, back, empty=way == "empty")
                begins += "the root is empty" if way == "empty" else ""
            yield begins

    def _must_be_last_known(self, job_id: str) -> None:
        shown = self._shown(job_id, None)
        since = {shown_to(None, truth) for truth in self.chaos.since(job_id)}
        self._must(shown in since or (shown == AWAY and None in since), job_id, shown)

    def _shown(self, job_id: str, owner: str | None, *, forced: bool = False) -> Any:
        """Ask for a status; None for a 404."""
        status, document, cache = self.whole.get(f"/api/jobs/{job_id}", owner, FORCED if forced else {})
        self._note("asked", job_id, owner, forced, status, document.get("attempt"), cache)
        if status in {404, 503}:
            assert document["code"] == ("job-not-found" if status == 404 else AWAY)
            return None if status == 404 else AWAY
        assert status == 200, document
        known = (document["status"], document["progress"], document["updatedAt"])
        return *known, "downloadUrl" in document

    def _note(self, *what: object) -> None:
        self.told.append((round(time.monotonic(), 3), *what))

    def _must(self, held: bool, job_id: str, *what: object) -> None:  # noqa: FBT001 - an assertion that tells more
        allowed = self.chaos.allowed(job_id) if job_id in JOBS else ""
        assert held, "\n".join(map(str, [*self.told[-60:], job_id, what, allowed]))


def _gone(root: Path, back: ExitStack, *, empty: bool) -> None:
    kept = root.with_name("unmounted")
    root.rename(kept)
    back.callback(kept.rename, root)
    if empty:
        root.mkdir()
        back.callback(root.rmdir)


@contextmanager
def _covered(root: Path) -> Iterator[str]:
    """Mount another file system over the root; where that is not allowed, do nothing."""
    may = os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = may and not subprocess.call(["mount", "-t", "tmpfs", "none", root])
    try:
        yield "the root is on another device" if mounted else ""
    finally:
        if mounted:
            subprocess.check_call(["umount", "-l", root])


class TruthByPolling(Truth):
    mode = "poll"


@pytest.mark.timeout(WANTED // 2 + 60)
@pytest.mark.parametrize("machine", [Truth, TruthByPolling])
def test_answers_are_true_whatever_the_farm_does(machine: type[Truth]) -> None:
    begun = machine.done
    chosen = settings(
        max_examples=100 if WANTED else 6,
        stateful_step_count=20 if WANTED else 12,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    run: Callable[[], None] = lambda: run_state_machine_as_test(machine, settings=chosen)  # noqa: E731
    run()
    while machine.done - begun < WANTED:
        run()
