"""Full garbage collections run by time, and ignore objects that exist once the first index is complete."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from jobsvc.service import gc_tuning
from jobsvc.web.background_task import background_task
from tests.eventually import until


@pytest.fixture(autouse=True)
def restore_gc() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_python_runs_no_full_collection_by_itself() -> None:
    young, middle, old = gc.get_threshold()
    gc_tuning.disable_automatic_full_collections()
    assert gc.get_threshold()[:2] == (young, middle)
    assert gc.get_threshold()[2] > 1000 * old


def test_collections_ignore_existing_objects() -> None:
    frozen = gc.get_freeze_count()
    there: list[list[object]] = [[] for _ in range(1000)]
    gc_tuning.freeze_existing_objects()
    assert gc.get_freeze_count() >= frozen + len(there)


async def test_full_collections_run_from_the_first_index_until_the_application_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gc_tuning, "FULL_COLLECTION_INTERVAL_S", 0.001)
    monkeypatch.setattr(gc_tuning, "FULL_COLLECTION_SHARE", 1.0)
    collections: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: collections.append("collected"))
    ready = asyncio.Event()

    async def trim() -> None:
        collections.append("trimmed")

    async with background_task(gc_tuning.collect_regularly(ready, trim), "jobsvc-gc"):
        await asyncio.sleep(0.01)
        assert not collections
        ready.set()
        await until(lambda: len(collections) >= 4)
        assert collections[:4] == ["collected", "trimmed"] * 2
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "jobsvc-gc"]


def test_pause_after_a_full_collection_grows_with_its_duration() -> None:
    assert gc_tuning.pause_after(0.001) == gc_tuning.FULL_COLLECTION_INTERVAL_S
    assert gc_tuning.pause_after(0.5) == pytest.approx(500)
