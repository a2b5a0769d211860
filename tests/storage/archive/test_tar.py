"""Tar archives: their length and headers, any range of them, and what other programs unpack."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.outputs import OutputKind
from jobsvc.storage.archive.file_list import FileList
from jobsvc.storage.archive.layout import FileRange
from jobsvc.storage.archive.tar import TarLayout, tar_layout
from jobsvc.storage.archive.tar_header import MAX_OCTAL, header, header_length
from tests.storage.archive.trees import bytes_of, file_list, length_of, run

SIZES = st.sampled_from([0, 1, 511, 512, 513, 1023, 1024, 5000])
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0/\\")
NAMES = st.one_of(
    st.text(CHARACTERS, min_size=1, max_size=8),
    st.integers(90, 110).map(lambda length: "n" * length),
    st.sampled_from(["é" * 40, "d/" * 30 + "long/" * 60 + "x", "\N{SNOWMAN}" * 85]),
).filter(lambda name: name not in {".", ".."})
TIMES = st.one_of(st.integers(-(2**40), 2**60), st.sampled_from([0, -1, MAX_OCTAL - 1, MAX_OCTAL]))
FILES = st.lists(st.tuples(NAMES, SIZES, TIMES), max_size=6, unique_by=lambda file: file[0])

ODD = [
    ("0", 0, 0), ("a" * 96, 1, 1_700_000_000), ("a" * 97, 512, 17), ("dir/" * 50 + "deep", 513, -5),
    ("frame é \N{SNOWMAN}.exr", 511, 1_700_000_000), ("line\nfeed", 1024, 8**11), ("z -x", 70_000, 16),
]  # fmt: skip


def contents_of(files: Sequence[tuple[str, int, int]]) -> list[bytes]:
    return [bytes([65 + number % 26]) * size for number, (_, size, _) in enumerate(files)]


def layout_of(files: FileList) -> TarLayout:
    return run(tar_layout(files))


@given(NAMES, st.one_of(SIZES, st.integers(0, 2**63)), TIMES)
def test_length_of_a_header_is_known_without_it(name: str, size: int, mtime: int) -> None:
    made = header(name.encode(), size, mtime)
    assert len(made) == header_length(name.encode(), size, mtime)
    member = tarfile.TarInfo(name)
    member.size, member.mtime = size, mtime
    assert made == member.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize("length", [*range(470, 520), *range(970, 1030), 9980, 4000])
def test_length_of_a_header_with_a_long_name_is_known_without_it(length: int) -> None:
    for name in ("n" * length, "é" * (length // 2)):
        assert len(header(name.encode(), 1, 1)) == header_length(name.encode(), 1, 1)


@given(FILES)
def test_tarfile_reads_names_bytes_and_times(files: list[tuple[str, int, int]]) -> None:
    contents = contents_of(files)
    layout = layout_of(file_list(files))
    data = bytes_of(layout, contents)
    assert len(data) == layout.length
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [f"out/{name}" for name, _, _ in files]
        assert [member.mtime for member in members] == [float(mtime) for _, _, mtime in files]
        for member, content in zip(members, contents, strict=True):
            assert (member.mode, member.uid, member.gid, member.uname, member.gname) == (0o644, 0, 0, "", "")
            assert member.isreg()
            extracted = archive.extractfile(member)
            assert extracted is not None
            assert extracted.read() == content


@given(FILES, st.data())
def test_any_range_equals_that_of_the_whole(files: list[tuple[str, int, int]], data: st.DataObject) -> None:
    contents = contents_of(files)
    layout = layout_of(file_list(files))
    whole = bytes_of(layout, contents)
    for _ in range(20):
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, len(whole) + 5))
        assert bytes_of(layout, contents, start, stop) == whole[start:stop]


def test_archive_of_no_files_is_its_end() -> None:
    layout = layout_of(file_list([]))
    assert bytes_of(layout, []) == bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(bytes(1024))) as archive:
        assert archive.getnames() == []


def test_ranges_of_an_archive_of_many_files_are_found() -> None:
    files = [(f"{number:04d}", number % 700, number) for number in range(1000)]
    contents = contents_of(files)
    layout = layout_of(file_list(files))
    whole = bytes_of(layout, contents)
    assert len(whole) == layout.length
    for start in range(0, len(whole), 9973):
        assert bytes_of(layout, contents, start, start + 2000) == whole[start : start + 2000]


def test_single_file_is_in_the_directory_of_its_output() -> None:
    layout = layout_of(file_list([("film.mp4", 3, 0)], "main", OutputKind.FILE))
    with tarfile.open(fileobj=io.BytesIO(bytes_of(layout, [b"abc"]))) as archive:
        assert archive.getnames() == ["main/film.mp4"]


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 2**53])
def test_large_files_have_an_exact_length_and_a_range_behind_them(size: int) -> None:
    layout = layout_of(file_list([("huge", size, 0), ("last", 3, 0)]))
    start = layout.length - 1024 - 512 - 512
    pieces = list(layout.pieces(start - 10, layout.length))
    padding = -size % 512
    assert pieces[0] == FileRange(0, size - 10 + padding, size)
    assert sum(map(length_of, pieces)) == layout.length - start + 10
    (first,) = [piece for piece in pieces if isinstance(piece, FileRange) and piece.file == 1]
    assert first == FileRange(1, 0, 3)
    member = tarfile.TarInfo.frombuf(next(iter(layout.pieces(start, start + 512))), "utf-8", "strict")  # type: ignore[arg-type]
    assert (member.name, member.size) == ("out/last", 3)


def test_etag_is_that_of_the_files() -> None:
    assert layout_of(file_list(ODD)).etag == f'"{file_list(ODD).version_id("tar")}"'
    assert layout_of(file_list(ODD)).etag != layout_of(file_list(ODD[:-1])).etag


@pytest.mark.parametrize("program", ["tar", "bsdtar", "7z"])
def test_program_unpacks_equal_names_and_bytes(tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    contents = contents_of(ODD)
    data = bytes_of(layout_of(file_list(ODD)), contents)
    (tmp_path / "all.tar").write_bytes(data)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    # tar and bsdtar read from a pipe, so that they cannot seek.
    from_pipe = [program, "-xf", "-", "-C", str(unpacked)]
    command = ["7z", "x", f"-o{unpacked}", str(tmp_path / "all.tar")] if program == "7z" else from_pipe
    done = subprocess.run(command, check=True, input=data, capture_output=True)
    assert b"arning" not in done.stderr
    found = {
        str(path.relative_to(unpacked)): path.read_bytes() for path in unpacked.rglob("*") if path.is_file()
    }
    assert found == {f"out/{name}": content for (name, _, _), content in zip(ODD, contents, strict=True)}
