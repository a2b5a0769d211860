"""Freed memory is returned to the system."""

from __future__ import annotations

from jobsvc.service.heap import MIN_GROWTH_BYTES, HeapTrim


def test_the_heap_is_trimmed_after_each_growth_and_not_without_one() -> None:
    resident, trims = [100 << 20], list[int]()

    def trim(keep: int) -> None:
        trims.append(keep)
        resident[0] = 60 << 20

    heap = HeapTrim(trim, lambda: resident[0])
    heap.trim_if_grown()
    heap.trim_if_grown()
    assert trims == [0]
    resident[0] += MIN_GROWTH_BYTES - 1
    heap.trim_if_grown()
    assert trims == [0]
    resident[0] += 1
    heap.trim_if_grown()
    assert trims == [0, 0]
