from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from jobsvc.service.garbage import spare_the_jobs


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_while_the_jobs_come_only_full_collections_come_more_rarely() -> None:
    young, middle, old = gc.get_threshold()
    spare_the_jobs()
    assert gc.get_threshold()[:2] == (young, middle)
    assert gc.get_threshold()[2] > old


def test_then_all_is_as_before_but_for_what_is_there() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    there: list[list[object]] = [[] for _ in range(1000)]
    spare_the_jobs()()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() >= frozen + len(there)
