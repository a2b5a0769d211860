"""Zip archives: their length, any range of them, and what other programs unpack."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stream_unzip import stream_unzip

from jobsvc.storage.archive import zip as module
from jobsvc.storage.archive.crc32 import Crc32Table
from jobsvc.storage.archive.file_list import FileList
from jobsvc.storage.archive.layout import CrcNeeded, FileRange
from jobsvc.storage.archive.zip import ZipLayout, zip_layout
from jobsvc.storage.archive.zip_records import dos_time
from tests.storage.archive.test_tar import FILES, ODD, contents_of
from tests.storage.archive.trees import bytes_of, file_list, length_of, run

PORTABLE = [
    (name, size, 1_600_000_000 if size == 1024 else mtime) for name, size, mtime in ODD if "\n" not in name
]
JAVA = Path(__file__).with_name("ReadZip.java")


def known(files: FileList, contents: Sequence[bytes]) -> Crc32Table:
    """Return a table with the CRC-32 of each file, even of those with times in the future."""
    table = Crc32Table()
    table._entries.update({file.version: crc32(data) for file, data in zip(files, contents, strict=True)})
    return table


def layout_of(files: FileList, table: Crc32Table | None = None) -> ZipLayout:
    return run(zip_layout(files, Crc32Table() if table is None else table))


@pytest.fixture(params=["read first", "with descriptors"])
def unknown_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How an unknown CRC-32 is handled: small files are read first, large ones have descriptors."""
    monkeypatch.setattr(
        module, "MAX_READ_FIRST_BYTES", 600 if request.param == "with descriptors" else 1 << 26
    )


both_ways = pytest.mark.usefixtures("unknown_files")


@given(FILES, st.sampled_from([0, 511, 1 << 26]), st.data())
def test_zipfile_reads_names_and_bytes_and_ranges_equal_those_of_the_whole(
    files: list[tuple[str, int, int]], read_first: int, data: st.DataObject
) -> None:
    contents = contents_of(files)
    listed = file_list(files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_READ_FIRST_BYTES", read_first)
        streamed = layout_of(listed)
        whole = bytes_of(streamed, contents)
        complete = layout_of(listed, known(listed, contents))
        assert complete.has_ranges
        archive = bytes_of(complete, contents)
        assert len(whole) == streamed.length == len(archive) == complete.length
        assert (whole == archive) == (streamed.etag == complete.etag)
        for made in (whole, archive):
            with zipfile.ZipFile(io.BytesIO(made)) as opened:
                assert opened.testzip() is None
                assert opened.namelist() == [f"out/{name}" for name, _, _ in files]
                assert [opened.read(info) for info in opened.infolist()] == contents
                assert {info.external_attr >> 16 for info in opened.infolist()} <= {0o100644}
        for _ in range(10):
            start = data.draw(st.integers(0, len(archive)))
            stop = data.draw(st.integers(start, len(archive) + 5))
            assert bytes_of(complete, contents, start, stop) == archive[start:stop]


def test_unknown_crc_of_a_small_file_changes_no_byte() -> None:
    files, contents = file_list(ODD), contents_of(ODD)
    first = layout_of(files)
    complete = layout_of(files, known(files, contents))
    assert (first.has_ranges, complete.has_ranges) == (False, True)
    assert first.etag == complete.etag
    assert bytes_of(first, contents) == bytes_of(complete, contents)
    assert not first.has_ranges


@both_ways
def test_crcs_that_were_computed_are_known_to_the_next_archive() -> None:
    table = Crc32Table()
    files, contents = file_list(PORTABLE), contents_of(PORTABLE)
    bytes_of(run(zip_layout(files, table)), contents)
    assert run(zip_layout(files, table)).has_ranges


def test_directory_cannot_be_made_without_the_crcs() -> None:
    layout = layout_of(file_list(PORTABLE))
    with pytest.raises(LookupError):
        list(layout.pieces(layout.length - 100, layout.length))


def test_archive_of_no_files_has_only_an_end() -> None:
    layout = layout_of(file_list([]))
    assert (layout.has_ranges, layout.length) == (True, 22)
    with zipfile.ZipFile(io.BytesIO(bytes_of(layout, []))) as archive:
        assert archive.namelist() == []


def test_etag_depends_on_which_files_have_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_READ_FIRST_BYTES", 2)
    files, contents = file_list([("a", 5, 1), ("b", 5, 1)]), [b"abcde", b"12345"]
    tables = [known(files.select([]), []), known(files, contents)]
    for index in range(2):
        table = Crc32Table()
        table.put(files[index].version, crc32(contents[index]))
        tables.append(table)
    layouts = [layout_of(files, table) for table in tables]
    assert len({layout.etag for layout in layouts}) == 4
    assert len({layout.length for layout in layouts}) == 1
    assert len({bytes_of(layout, contents) for layout in layouts}) == 4


@pytest.mark.parametrize("size", [2**32 - 2, 2**32 - 1, 2**32, 2**53])
def test_sizes_and_offsets_of_64_bits_are_read_by_zipfile(size: int) -> None:
    files = file_list([("huge", size, 0), ("last", 3, 0)])
    table = Crc32Table()
    table.put(files[0].version, 1)
    table.put(files[1].version, crc32(b"abc"))
    layout = layout_of(files, table)

    class Sparse(io.RawIOBase):
        """The archive, whose large file is zeros."""

        def __init__(self) -> None:
            self.at = 0

        def seekable(self) -> bool:
            return True

        def readable(self) -> bool:
            return True

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset + (0, self.at, layout.length)[whence]
            return self.at

        def tell(self) -> int:
            return self.at

        def read(self, count: int = -1) -> bytes:
            stop = layout.length if count < 0 else min(self.at + count, layout.length)
            parts = [
                piece if isinstance(piece, bytes) else b"abc"[piece.start : piece.stop]
                for piece in layout.pieces(self.at, stop)
                if not isinstance(piece, CrcNeeded)
            ]
            self.at = stop
            return b"".join(parts)

    with zipfile.ZipFile(Sparse()) as archive:
        assert [info.file_size for info in archive.infolist()] == [size, 3]
        assert archive.read("out/last") == b"abc"
    pieces = list(layout.pieces(size, layout.length))
    assert FileRange(1, 0, 3) in pieces
    assert sum(map(length_of, pieces)) == layout.length - size


@pytest.mark.parametrize(("size", "length"), [(2**32 - 2, 16), (2**32 - 1, 24)])
def test_descriptor_of_a_large_file_has_64_bits(size: int, length: int) -> None:
    layout = layout_of(file_list([("huge", size, 0)]))
    (content,) = [piece for piece in layout.pieces(0, size) if isinstance(piece, FileRange)]
    assert content.needs_crc
    layout.set_crc(0, 0x01020304)
    *_, descriptor, _, end = layout.pieces(size // 2, layout.length)
    assert isinstance(descriptor, bytes)
    assert descriptor[:8] == b"PK\7\x08\4\3\2\1"
    assert descriptor[8:] == size.to_bytes(length // 2 - 4, "little") * 2
    assert isinstance(end, bytes)


def test_more_than_65535_files_are_read_by_zipfile() -> None:
    files = file_list([(f"{number:05d}", 0, 0) for number in range(66_000)])
    layout = layout_of(files)
    with zipfile.ZipFile(io.BytesIO(bytes_of(layout, [b""] * len(files)))) as archive:
        assert len(archive.namelist()) == 66_000


@pytest.mark.parametrize(
    ("mtime", "expected"),
    [
        (0, (0, 33)), (2**60, (0xBF7D, 0xFF9F)), (-1, (0, 33)), (315_532_800, (0, 33)),
        (1_700_000_000, (22 << 11 | 13 << 5 | 10, (2023 - 1980) << 9 | 11 << 5 | 14)),
    ],
)  # fmt: skip
def test_dos_times_are_clipped(mtime: int, expected: tuple[int, int]) -> None:
    assert dos_time(mtime) == expected


def unpack(program: str, data: bytes, target: Path) -> None:
    """Unpack an archive from a file, or from a pipe if the program can read one."""
    needed = "javac" if program == "java" else program
    if shutil.which(needed) is None:
        pytest.skip(f"{needed} is not installed")
    archive = target.with_name("all.zip")
    archive.write_bytes(data)
    command = {
        "unzip": ["unzip", "-q", str(archive), "-d", str(target)],
        "7z": ["7z", "x", "-bd", f"-o{target}", str(archive)],
        "bsdtar": ["bsdtar", "-xf", "-", "-C", str(target)],
        "java": ["java", str(JAVA), str(target)],
    }[program]
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, check=True, input=data, capture_output=True, env=environment)
    assert b"arning" not in done.stdout + done.stderr


def found_in(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def archives(*, complete: bool) -> tuple[bytes, dict[str, bytes]]:
    """Return an archive and what it contains."""
    contents = contents_of(PORTABLE)
    files = file_list(PORTABLE)
    layout = layout_of(files, known(files, contents) if complete else None)
    named = {f"out/{name}": content for (name, _, _), content in zip(PORTABLE, contents, strict=True)}
    return bytes_of(layout, contents), named


@both_ways
@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("program", ["unzip", "7z", "bsdtar"])
def test_program_unpacks_equal_names_and_bytes(tmp_path: Path, program: str, *, complete: bool) -> None:
    data, expected = archives(complete=complete)
    target = tmp_path / "unpacked"
    target.mkdir()
    unpack(program, data, target)
    assert found_in(target) == expected


@pytest.mark.parametrize("complete", [True, False])
def test_streaming_readers_unpack_equal_names_and_bytes(tmp_path: Path, *, complete: bool) -> None:
    data, expected = archives(complete=complete)
    chunks = [data[at : at + 5000] for at in range(0, len(data), 5000)]
    assert {name.decode(): b"".join(parts) for name, _, parts in stream_unzip(chunks)} == expected
    unpack("java", data, target := tmp_path / "unpacked")
    assert found_in(target) == expected
