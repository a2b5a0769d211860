from __future__ import annotations

from typing import Any

import pytest

from jobsvc.domain.job import Status
from jobsvc.domain.outputs import OutputKind
from jobsvc.domain.status_record import parse_record
from jobsvc.index.catalogue.entries import REMEMBER_ABSENCE_S, Catalogue
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.jobs.output_states import OutputState, pack_states
from jobsvc.storage.jobs.snapshot import JobSnapshot


def make_snapshot(job_id: str, status: str = "rendering", **keys: Any) -> JobSnapshot:
    job = parse_record(job_id, {"status": status, "owner": "ann"} | keys, 0)
    return JobSnapshot(job, FileVersion(1, 1, 1, 1), output=None, is_stable=True)


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


def test_each_status_counts_its_jobs_through_every_change(catalogue: Catalogue) -> None:
    catalogue.put("a", make_snapshot("a", "queued"), 1)
    catalogue.put("b", make_snapshot("b", "queued"), 1)
    catalogue.put("a", make_snapshot("a", "completed"), 2)
    catalogue.remove("b", 2)
    assert {status: count for status, count in catalogue.counts.items() if count} == {Status.COMPLETED: 1}


def test_unfinished_jobs_are_those_queued_or_rendering(catalogue: Catalogue) -> None:
    for job_id, status in [("a", "queued"), ("b", "failed"), ("c", "rendering"), ("d", "canceled")]:
        catalogue.put(job_id, make_snapshot(job_id, status), 1)
    catalogue.put("c", make_snapshot("c", "completed"), 2)
    assert list(catalogue.unfinished()) == ["a"]


def test_read_older_than_the_last_applied_one_changes_nothing(catalogue: Catalogue) -> None:
    newer = make_snapshot("a", progress=2)
    catalogue.put("a", newer, 5)
    assert not catalogue.put("a", make_snapshot("a", progress=1), 4)
    assert not catalogue.remove("a", 4)
    assert (entry := catalogue.get("a")) is not None
    assert entry.snapshot is newer
    assert entry.verified_at == 5


@pytest.mark.parametrize("known", [True, False])
def test_read_older_than_an_absence_restores_no_job(catalogue: Catalogue, *, known: bool) -> None:
    if known:
        catalogue.put("a", make_snapshot("a"), 1)
    catalogue.remove("a", 5)
    assert not catalogue.put("a", make_snapshot("a"), 4)
    catalogue.mark_unreadable("a", "half written", 4, 0)
    assert not catalogue.entries
    assert not catalogue.unreadable
    assert catalogue.put("a", make_snapshot("a"), 6)
    assert not catalogue.remove("a", 5)


def test_absences_expire_and_reads_that_took_as_long_prove_nothing(
    catalogue: Catalogue,
) -> None:
    for moment in range(100):
        catalogue.remove(f"guess-{moment}", moment)
    assert len(catalogue._absences) <= REMEMBER_ABSENCE_S + 1
    assert not catalogue.put("guess-1", make_snapshot("guess-1"), 0)
    assert catalogue.put("a", make_snapshot("a"), 99 - REMEMBER_ABSENCE_S)


def test_record_unreadable_before_the_last_read_does_not_count(catalogue: Catalogue) -> None:
    catalogue.put("a", make_snapshot("a"), 5)
    catalogue.mark_unreadable("a", "half written", 4, 0)
    assert not catalogue.unreadable
    catalogue.mark_unreadable("a", "half written", 6, 0)
    assert list(catalogue.unreadable) == ["a"]


def test_subscriber_is_notified_of_each_change_once(catalogue: Catalogue) -> None:
    heard: list[Any] = []
    first, second = make_snapshot("a"), make_snapshot("a", progress=1)
    catalogue.subscribe(lambda *change: heard.append(change))
    catalogue.put("a", first, 1)
    catalogue.put("a", first, 2)
    catalogue.put("a", make_snapshot("a"), 3)
    catalogue.put("a", second, 4)
    catalogue.remove("a", 5)
    assert [(job_id, before is not None, after is not None) for job_id, before, after in heard] == [
        ("a", False, True),
        ("a", True, True),
        ("a", True, False),
    ]


def test_unsubscribed_listener_is_not_notified(catalogue: Catalogue) -> None:
    heard: list[Any] = []
    catalogue.subscribe(lambda *change: heard.append(change))()
    catalogue.put("a", make_snapshot("a"), 1)
    assert not heard


def done(version: int | None, **keys: Any) -> JobSnapshot:
    known = make_snapshot("a", "completed", **keys)
    output = None if version is None else FileVersion(version, 0, 0, 0)
    return JobSnapshot(known.job, known.record_version, output, is_stable=known.is_stable)


def test_new_version_of_an_output_is_notified_but_is_not_a_change_of_the_job(catalogue: Catalogue) -> None:
    """A watch need not report it: a change without an event would restart the watcher."""
    heard: list[Any] = []
    catalogue.put("a", done(1), 1)
    catalogue.subscribe(lambda *change: heard.append(change))
    assert not catalogue.put("a", done(1), 2)
    assert not heard
    assert not catalogue.put("a", done(2), 3)
    ((job_id, before, after),) = heard
    assert (job_id, before.output_version, after.output_version) == (
        "a",
        FileVersion(1, 0, 0, 0),
        FileVersion(2, 0, 0, 0),
    )
    assert (entry := catalogue.get("a")) is not None
    assert entry.snapshot is after


@pytest.mark.parametrize(("before", "after"), [(None, 1), (1, None)])
def test_added_or_removed_output_is_a_change(
    catalogue: Catalogue, before: int | None, after: int | None
) -> None:
    catalogue.put("a", done(before), 1)
    assert catalogue.put("a", done(after), 2)


PREVIEW = [{"name": "preview", "path": "output/preview.mp4"}]


def with_preview(kind: OutputKind | None, version: int = 1) -> JobSnapshot:
    known = make_snapshot("a", "completed", outputs=PREVIEW)
    state = None if kind is None else OutputState(kind, FileVersion(version, 0, 0, 0))
    packed = pack_states(known.job.outputs, [state])
    return JobSnapshot(known.job, known.record_version, None, is_stable=True, outputs=packed)


def test_new_version_of_a_further_output_is_notified_but_is_not_a_change_of_the_job(
    catalogue: Catalogue,
) -> None:
    heard: list[Any] = []
    catalogue.put("a", with_preview(OutputKind.DIRECTORY, 1), 1)
    catalogue.subscribe(lambda *change: heard.append(change))
    assert not catalogue.put("a", with_preview(OutputKind.DIRECTORY, 1), 2)
    assert not heard
    assert not catalogue.put("a", with_preview(OutputKind.DIRECTORY, 2), 3)
    assert len(heard) == 1


@pytest.mark.parametrize("after", [None, OutputKind.DIRECTORY])
def test_further_output_of_another_kind_is_a_change(catalogue: Catalogue, after: OutputKind | None) -> None:
    catalogue.put("a", with_preview(OutputKind.FILE), 1)
    assert catalogue.put("a", with_preview(after), 2)


def test_notification_of_a_digest_has_the_unchanged_snapshot(catalogue: Catalogue) -> None:
    heard: list[Any] = []
    known = done(1)
    catalogue.put("a", known, 1)
    catalogue.subscribe(lambda *change: heard.append(change))
    catalogue.notify_shown_differently("a")
    catalogue.notify_shown_differently("gone")
    assert heard == [("a", known, known)]
    assert catalogue.counts[Status.COMPLETED] == 1
