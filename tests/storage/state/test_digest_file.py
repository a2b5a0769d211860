from __future__ import annotations

import os
import string
import tempfile
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.state.digest_file import MAX_LINE_BYTES, DigestFile
from jobsvc.storage.state.digest_table import DigestTable, pack_entry

LARGEST: Final = FileVersion(2**64 - 1, 2**64 - 1, 10**9 * 2**63 - 1, 10**9 * -(2**63))
PAGE: Final = pack_entry(LARGEST, bytes(range(32)))
VERSION: Final = FileVersion(1, 2, 3, 4)
GOOD: Final[dict[str, Any]] = {
    "job": "a",
    "version": VERSION.hex(),
    "sha256": "ab" * 32,
    "crc32": crc32(VERSION + b"\xab" * 32, crc32(b"a")),
}


@pytest.fixture
def path(state_dir: Path) -> Path:
    return state_dir / "digests.jsonl"


def test_added_digest_survives_a_restart(path: Path) -> None:
    first = DigestFile(path)
    assert first.load() == ({}, 0)
    first.append("a", PAGE)
    first.append("b.c-d_E", PAGE)
    assert DigestFile(path).load() == ({"a": PAGE, "b.c-d_E": PAGE}, 0)
    assert path.stat().st_mode & 0o777 == 0o600


def test_line_names_job_version_and_digest(path: Path) -> None:
    DigestFile(path).append("a", pack_entry(VERSION, b"\xab" * 32))
    assert orjson.loads(path.read_bytes()) == GOOD


def test_no_line_exceeds_the_maximum_length(path: Path) -> None:
    file = DigestFile(path)
    file.append("x" * 128, PAGE)
    assert len(path.read_bytes()) <= MAX_LINE_BYTES


def test_later_line_of_a_job_counts(path: Path) -> None:
    file = DigestFile(path)
    for number in range(3):
        file.append("a", pack_entry(FileVersion(number, 0, 0, 0), bytes(32)))
        file.append(str(number), PAGE)
    pages, _ = DigestFile(path).load()
    assert pages["a"] == pack_entry(FileVersion(2, 0, 0, 0), bytes(32))
    assert list(pages) == ["0", "1", "a", "2"], "in insertion order"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        *(
            orjson.dumps(GOOD | wrong)
            for wrong in (
                {"job": ".hidden"},
                {"job": "../x"},
                {"job": 1},
                {"version": VERSION.hex()[2:]},
                {"version": VERSION.hex() + "00"},
                {"version": "xy" * len(VERSION)},
                {"version": [1, 2, 3, 4]},
                {"version": None},
                {"sha256": "ab" * 31},
                {"sha256": "ab" * 33},
                {"sha256": "ab" * 31, "crc32": crc32(VERSION + b"\xab" * 31, crc32(b"a"))},
                {"job": "../x", "crc32": crc32(pack_entry(VERSION, b"\xab" * 32), crc32(b"../x"))},
                {"sha256": "xy" * 32},
                {"sha256": 1},
                {"crc32": GOOD["crc32"] + 1},
                {"crc32": "1"},
            )
        ),
        *(orjson.dumps({key: GOOD[key] for key in GOOD if key != missing}) for missing in GOOD),
    ],
)
def test_invalid_line_is_skipped_and_counted(path: Path, line: bytes) -> None:
    DigestFile(path).append("a", PAGE)
    path.write_bytes(path.read_bytes() + line + b"\n")
    DigestFile(path).append("b", PAGE)
    file = DigestFile(path)
    assert file.load() == ({"a": PAGE, "b": PAGE}, 1)
    assert file.needs_rewrite


def test_unknown_keys_are_ignored(path: Path) -> None:
    path.write_bytes(orjson.dumps({**GOOD, "computedAt": 1}) + b"\n")
    path.chmod(0o600)
    assert DigestFile(path).load() == ({"a": pack_entry(VERSION, b"\xab" * 32)}, 0)


def test_file_needs_compaction_once_it_has_twice_the_lines(path: Path) -> None:
    file = DigestFile(path, max_digests=2)
    file.load()
    due = []
    for _ in range(5):
        file.append("a", PAGE)
        due.append(file.needs_rewrite)
    assert due == [False] * 4 + [True]
    file.rewrite({"a": PAGE})
    assert not file.needs_rewrite
    assert len(path.read_bytes().splitlines()) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_latest_lines_are_kept_above_the_maximum(path: Path) -> None:
    large = DigestFile(path, max_digests=3)
    for job_id in "abc":
        large.append(job_id, PAGE)
    assert list(DigestFile(path, max_digests=2).load()[0]) == ["b", "c"]


def _readable(path: Path) -> None:
    path.chmod(0o644)


def _linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _huge(path: Path) -> None:
    os.truncate(path, 10 * MAX_LINE_BYTES)


@pytest.mark.parametrize("harm", [_readable, _linked, _folder, _huge])
def test_foreign_file_is_refused_and_needs_compaction(path: Path, harm: object) -> None:
    assert callable(harm)
    DigestFile(path).append("a", PAGE)
    harm(path)
    file = DigestFile(path, max_digests=2)
    with pytest.raises((ValueError, OSError)):
        file.load()
    assert file.needs_rewrite
    if not path.is_dir():
        file.rewrite({"b": PAGE})
        assert DigestFile(path).load() == ({"b": PAGE}, 0)


def test_partial_line_needs_compaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = DigestFile(path)
    file.load()
    file.append("a", PAGE)
    due, whole = [file.needs_rewrite], os.write
    monkeypatch.setattr(os, "write", lambda fd, data: whole(fd, data[:20]))
    file.append("b", PAGE)
    due.append(file.needs_rewrite)
    monkeypatch.undo()
    file.append("c", PAGE)
    due.append(file.needs_rewrite)
    file.rewrite({"a": PAGE, "b": PAGE})
    assert [*due, file.needs_rewrite] == [False, True, True, False]
    assert DigestFile(path).load() == ({"a": PAGE, "b": PAGE}, 0)


def test_nothing_is_added_without_a_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DigestFile(tmp_path / "gone" / "digests.jsonl").append("a", PAGE)
    assert DigestFile(tmp_path / "gone" / "digests.jsonl").load() == ({}, 0)


MOST: Final = 4
JOBS: Final = st.sampled_from(["a", "b", "c", "d", "e", "f"])
VERSIONS: Final = st.builds(FileVersion, st.integers(0, 3), st.integers(0, 3), st.just(7), st.integers(0, 1))
DIGESTS: Final = st.binary(min_size=32, max_size=32)


class Restarts(RuleBasedStateMachine):
    """A digest table and its file, as the service uses them, through restarts, crashes and damage.

    What is returned for a version was added for that version; what was added is returned, unless it was the
    oldest of too many, or its line was damaged before a restart: one more digit does not make another digest.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "digests.jsonl"
        self.learnt: dict[tuple[str, FileVersion], bytes] = {}
        """All digests that were ever added; a version has one digest."""
        self.kept: dict[str, FileVersion] = {}
        """The version of each job that must be known, in insertion order."""
        self.start()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def start(self) -> int:
        self.table, self.file = DigestTable(MOST), DigestFile(self.path, MOST)
        pages, skipped = self.file.load()
        self.table.restore(pages)
        if self.file.needs_rewrite:
            self.file.rewrite(self.table.entries)
        return skipped

    @rule(job_id=JOBS, version=VERSIONS, digest=DIGESTS)
    def add_digest(self, job_id: str, version: FileVersion, digest: bytes) -> None:
        page = pack_entry(version, self.learnt.setdefault((job_id, version), digest))
        self.table.put(job_id, page)
        self.kept.pop(job_id, None)
        self.kept[job_id] = version
        if len(self.kept) > MOST:
            del self.kept[next(iter(self.kept))]
        self.file.append(job_id, page)
        if self.file.needs_rewrite:
            self.file.rewrite(self.table.entries)

    @rule()
    def restart(self) -> None:
        assert self.start() == 0

    @precondition(lambda self: self.path.exists() and self.path.stat().st_size)
    @rule(lost=st.integers(1, 400))
    def restart_after_a_torn_write(self, lost: int) -> None:
        size = self.path.stat().st_size
        os.truncate(self.path, max(size - lost, 0))
        data = self.path.read_bytes()
        skipped = self.start()
        assert skipped == (bool(data) and not data.endswith(b"\n"))
        self.adopt_table()

    @rule(line=st.text(string.printable, max_size=20), at=st.integers(0, 2000))
    def restart_after_damage(self, line: str, at: int) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        self.path.write_bytes(data[:at] + line.encode() + data[at:])
        self.path.chmod(0o600)
        self.start()
        self.adopt_table()

    def adopt_table(self) -> None:
        """Adopt from the table what may be known; the invariants check that it is correct."""
        versions = {bytes(version): version for _, version in self.learnt}
        self.kept = {job_id: versions[page[: len(VERSION)]] for job_id, page in self.table.entries.items()}

    @invariant()
    def added_digests_are_known(self) -> None:
        for job_id, version in getattr(self, "kept", {}).items():
            assert self.table.find(job_id, version) == self.learnt[job_id, version]

    @invariant()
    def nothing_else_is_known(self) -> None:
        if hasattr(self, "book"):
            assert len(self.table) == len(self.kept) <= MOST
            for job_id, version in self.learnt:
                found = self.table.find(job_id, version)
                assert found is None or self.kept[job_id] == version

    @invariant()
    def the_file_is_bounded(self) -> None:
        if hasattr(self, "file") and self.path.exists():
            assert not self.file.needs_rewrite
            assert len(self.path.read_bytes().splitlines()) <= 2 * MOST


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
