"""Which jobs a journal reports for a time, on virtual clocks."""

from __future__ import annotations

import pytest

from jobsvc.domain.status_record import parse_record
from jobsvc.index.catalogue.change_journal import MARGIN_S, ChangeJournal
from jobsvc.index.catalogue.entries import Catalogue
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.snapshot import JobSnapshot

EPOCH_S = 1_000_000.0
"""Time of day at which the monotonic clock was 0."""


class Journal:
    """A journal over a catalogue that a test changes; one second passes with each change."""

    def __init__(self, max_jobs: int = 100) -> None:
        self.now = 1000.0
        self.clock_error = 0.0
        self.catalogue = Catalogue()
        self.journal = ChangeJournal(
            self.catalogue,
            max_jobs,
            clock=lambda: self.now,
            wall_clock=lambda: EPOCH_S + self.now + self.clock_error,
        )
        self.versions = 0

    def begin(self) -> None:
        self.journal.note_reconciled(EPOCH_S + self.now, found_all=True)
        self.now += 2 * MARGIN_S

    def put(self, job_id: str, owner: str = "anna", status: str = "queued") -> None:
        self.now += 1
        self.versions += 1
        times = dict.fromkeys(("createdAt", "updatedAt"), "2026-01-01T00:00:00Z")
        job = parse_record(job_id, {"status": status, "owner": owner, **times}, 0)
        version = FileVersion(1, self.versions, 3, 4)
        self.catalogue.put(job_id, JobSnapshot(job, version, output=None, is_stable=True), self.now)

    def remove(self, job_id: str) -> None:
        self.now += 1
        self.catalogue.remove(job_id, self.now)

    def changed_since(self, seconds_ago: float, owner: str | None = "anna") -> list[str] | None:
        """Return what has changed since then, without the margin; sorted."""
        job_ids = self.journal.changed_since(EPOCH_S + self.now - seconds_ago + MARGIN_S, owner)
        return None if job_ids is None else sorted(job_ids)


@pytest.fixture
def journal() -> Journal:
    journal = Journal()
    journal.begin()
    return journal


def test_jobs_are_reported_once_by_their_last_changes(journal: Journal) -> None:
    for job_id in ("a", "b", "c"):
        journal.put(job_id)
    journal.put("a", status="rendering")
    assert journal.changed_since(10) == ["a", "b", "c"]
    assert journal.changed_since(1.5) == ["a", "c"]


def test_changes_within_the_margin_before_the_time_are_reported(journal: Journal) -> None:
    journal.put("a")
    assert journal.journal.changed_since(EPOCH_S + journal.now + MARGIN_S - 1, "anna") == ["a"]
    assert journal.journal.changed_since(EPOCH_S + journal.now, "anna") == ["a"]
    journal.now += MARGIN_S
    assert journal.journal.changed_since(EPOCH_S + journal.now, "anna") == ["a"]
    journal.now += 1
    assert journal.journal.changed_since(EPOCH_S + journal.now, "anna") == []


def test_owner_gets_jobs_that_are_or_were_theirs_and_no_others(journal: Journal) -> None:
    for owner in ("anna", "bob", "eve"):
        journal.put("moved", owner)
        journal.put(f"of-{owner}", owner)
    journal.remove("of-anna")
    assert journal.changed_since(20, "anna") == ["moved", "of-anna"]
    assert journal.changed_since(20, "bob") == ["moved", "of-bob"]
    assert journal.changed_since(20, "eve") == ["moved", "of-eve"]
    assert journal.changed_since(20, "dave") == []
    assert journal.changed_since(20, None) == ["moved", "of-anna", "of-bob", "of-eve"]


def test_record_that_was_written_again_with_the_same_content_counts_as_changed(journal: Journal) -> None:
    journal.put("a")
    journal.now += 100
    journal.put("a")
    assert journal.changed_since(10) == ["a"]


def test_times_before_the_first_index_are_unknown() -> None:
    journal = Journal()
    journal.put("a")
    assert journal.changed_since(10) is None
    journal.begin()
    journal.put("b")
    assert journal.changed_since(2 * MARGIN_S) == ["b"]
    assert journal.changed_since(2 * MARGIN_S + 1) is None
    assert journal.journal.changed_since(0.0, "anna") is None


def test_later_half_is_kept_and_earlier_times_are_unknown(journal: Journal) -> None:
    for number in range(101):
        journal.put(f"job-{number:03}")
    assert journal.changed_since(50.5) == [f"job-{number:03}" for number in range(50, 101)]
    assert journal.changed_since(51) is None


def test_time_that_is_in_the_future_by_more_than_the_margin_is_unknown(journal: Journal) -> None:
    journal.put("a")
    now = EPOCH_S + journal.now
    assert journal.journal.changed_since(now + MARGIN_S, "anna") == ["a"]
    assert journal.journal.changed_since(now + MARGIN_S + 1, "anna") is None


def test_clock_that_was_set_right_meanwhile_changes_nothing(journal: Journal) -> None:
    journal.clock_error = -3600
    journal.put("a")
    journal.clock_error = 0
    assert journal.changed_since(2) == ["a"]


def test_time_until_which_all_was_seen_advances_only_if_everything_was_found(journal: Journal) -> None:
    journal.journal.note_reconciled(EPOCH_S + 5, found_all=True)
    journal.journal.note_reconciled(EPOCH_S + 9, found_all=False)
    assert journal.journal.seen_until == EPOCH_S + 5
