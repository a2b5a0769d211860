from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.storage.threads import gil_yield
from jobsvc.storage.threads.gil_yield import chunks_yielding_gil


@given(count=st.integers(0, 9_999))
def test_all_items_are_yielded_once_in_order(count: int) -> None:
    things = range(count)
    assert [thing for part in chunks_yielding_gil(things, 2000) for thing in part] == list(things)


@pytest.mark.parametrize(("count", "rested"), [(0, 0), (3, 0), (4, 1), (6, 1), (7, 2)])
def test_thread_sleeps_between_two_chunks(monkeypatch: pytest.MonkeyPatch, count: int, rested: int) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(gil_yield, "sleep", pauses.append)
    assert all(len(part) <= 3 for part in chunks_yielding_gil(range(count), 3))
    assert pauses == [gil_yield.GIL_PAUSE_S] * rested
