"""Computing and remembering CRC-32s."""

from __future__ import annotations

import time
from zlib import crc32

import pytest

from jobsvc.storage.archive.crc32 import Crc32Table, RunningCrc
from jobsvc.storage.files.file_version import FileVersion


def version(inode: int, mtime_ns: int = 1) -> FileVersion:
    return FileVersion(inode, 5, mtime_ns, 1)


def test_crc_of_a_version_is_remembered() -> None:
    table = Crc32Table()
    table.put(version(1), 17)
    assert table.get(version(1)) == 17
    assert table.get(version(2)) is None
    assert table.get(version(1, 2)) is None


def test_oldest_entries_are_dropped() -> None:
    table = Crc32Table(3)
    for inode in (1, 2, 3, 1, 4):
        table.put(version(inode), inode)
    assert len(table) == 3
    assert [table.get(version(inode)) for inode in (1, 2, 3, 4)] == [1, None, 3, 4]


@pytest.mark.parametrize(
    "risky", [version(0), version(1, time.time_ns() + 10**17)], ids=["without inode", "just modified"]
)
def test_version_that_another_file_could_have_is_not_remembered(risky: FileVersion) -> None:
    table = Crc32Table()
    table.put(risky, 1)
    assert table.get(risky) is None


def test_crc_is_computed_in_parts() -> None:
    running = RunningCrc()
    running.add(3, 0, memoryview(b"abc"))
    assert (running.offset(3), running.offset(4)) == (3, 0)
    running.add(3, 3, memoryview(b"de"))
    assert running.value == crc32(b"abcde")
    for file, start in ((3, 4), (4, 5)):
        with pytest.raises(ValueError, match="do not follow"):
            running.add(file, start, memoryview(b"x"))
    running.add(4, 0, memoryview(b"f"))
    assert running.value == crc32(b"f")
