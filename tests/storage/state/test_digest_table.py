from __future__ import annotations

import pytest

from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.state.digest_table import DigestTable, pack_entry

OLD, NEW = FileVersion(1, 2, 3, 4), FileVersion(1, 2, 3, 5)
ONE, TWO = b"1" * 32, b"2" * 32


def test_digest_is_valid_only_for_its_version() -> None:
    table = DigestTable()
    table.put("a", pack_entry(OLD, ONE))
    assert table.find("a", OLD) == ONE
    assert table.find("a", NEW) is None
    assert table.find("b", OLD) is None


@pytest.mark.parametrize("place", range(4))
def test_every_part_of_a_version_has_to_match(place: int) -> None:
    table = DigestTable()
    table.put("a", pack_entry(OLD, ONE))
    parts = [OLD.inode, OLD.size, OLD.mtime_ns, OLD.ctime_ns]
    parts[place] += 1
    assert table.find("a", FileVersion(*parts)) is None


def test_one_version_per_job_is_kept() -> None:
    table = DigestTable()
    table.put("a", pack_entry(OLD, ONE))
    table.put("a", pack_entry(NEW, TWO))
    assert (table.find("a", OLD), table.find("a", NEW), len(table)) == (None, TWO, 1)


def test_oldest_digest_is_dropped_above_the_maximum() -> None:
    table = DigestTable(max_entries=2)
    for job_id in ("a", "b", "a", "c"):
        table.put(job_id, pack_entry(OLD, ONE))
    assert [job_id for job_id in "abc" if table.find(job_id, OLD)] == ["a", "c"]


def test_entries_are_a_copy_in_insertion_order() -> None:
    table = DigestTable()
    for job_id in ("b", "a", "b"):
        table.put(job_id, pack_entry(OLD, ONE))
    pages = table.entries
    table.put("c", pack_entry(OLD, ONE))
    assert pages == {"a": pack_entry(OLD, ONE), "b": pack_entry(OLD, ONE)}
    assert list(pages) == ["a", "b"]


def test_digest_of_another_instance_replaces_only_those_of_older_files() -> None:
    table = DigestTable()
    assert table.put_newer("a", pack_entry(OLD, ONE))
    assert not table.put_newer("a", pack_entry(OLD, ONE))
    assert not table.put_newer("a", pack_entry(FileVersion(9, 2, 3, 9), TWO))
    assert table.find("a", OLD) == ONE
    newer = FileVersion(9, 2, 4, 9)
    assert table.put_newer("a", pack_entry(newer, TWO))
    assert table.find("a", newer) == TWO
