"""The packed list of the files of a job's outputs."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.outputs import Frames, Output, OutputKind
from jobsvc.storage.archive.file_list import FileList, ListedFile, OutputFilesBuilder
from jobsvc.storage.files.file_version import FileVersion

BEAUTY = Output("beauty", "out/beauty.####.exr")
NOTES = Output("notes", "out/notes/")
FILM = Output("film", "out/film.mp4")


def version(number: int) -> FileVersion:
    return FileVersion(number, number * 10, number * 1_000_000_007, number)


def sequence(*frames: int, output: Output = BEAUTY) -> OutputFilesBuilder:
    builder = OutputFilesBuilder(output, OutputKind.SEQUENCE)
    for frame in frames:
        builder.add(f"beauty.{frame:04d}.exr", version(abs(frame)), frame)
    return builder


def three_outputs() -> FileList:
    notes = OutputFilesBuilder(NOTES, OutputKind.DIRECTORY)
    for number, path in enumerate(["a", "b/c", "b/\N{SNOWMAN}"]):
        notes.add(path, version(number))
    film = OutputFilesBuilder(FILM, OutputKind.FILE)
    film.add("film.mp4", version(7))
    return FileList([sequence(1, 2, 4).finish(), notes.finish(), film.finish()])


def test_list_has_each_file_with_output_path_frame_and_version() -> None:
    files = three_outputs()
    assert len(files) == 7
    assert files[0] == ListedFile(BEAUTY, "beauty.0001.exr", 1, version(1))
    assert files[5] == ListedFile(NOTES, "b/\N{SNOWMAN}", None, version(2))
    assert files[6] == ListedFile(FILM, "film.mp4", None, version(7))
    assert list(files) == list(files.slice(0, 99)) == [files[index] for index in range(7)]
    assert list(files.slice(2, 4)) == [files[2], files[3]]
    assert files.total_size == sum(file.version.size for file in files) == 170
    for index in (7, -1):
        with pytest.raises(IndexError):
            files[index]


def test_file_is_found_by_output_and_path() -> None:
    files = three_outputs()
    for index, file in enumerate(files):
        assert files.find(file.output.name, file.path) == files.index_at(file.output.name, file.path) == index
    for absent in (
        ("beauty", "beauty.0003.exr"),
        ("notes", "c"),
        ("film", "a"),
        ("film", "z"),
        ("other", "a"),
    ):
        assert files.find(*absent) is None


def test_position_of_an_absent_file_is_that_of_the_next_one() -> None:
    files = three_outputs()
    assert files.index_at("beauty", "beauty.0003.exr") == 2
    assert files.index_at("beauty", "beauty.0005.exr") == files.index_at("notes", "") == 3
    assert files.index_at("notes", "b/d") == 5
    assert files.index_at("film", "z") == 7
    assert files.index_at("other", "a") is None


def test_path_that_is_no_utf8_is_not_found() -> None:
    assert three_outputs().find("notes", "\udcff") is None


def test_selection_has_the_named_outputs_and_frames() -> None:
    files = three_outputs()
    assert [file.path for file in files.select(["film", "notes"])] == [
        "a",
        "b/c",
        "b/\N{SNOWMAN}",
        "film.mp4",
    ]
    chosen = files.select(frames=Frames(2, 3))
    assert [file.frame for file in chosen] == [2]
    assert chosen.total_size == 20
    assert chosen.find("beauty", "beauty.0002.exr") == 0
    assert chosen.find("beauty", "beauty.0001.exr") is None
    assert len(files.select(["film"], Frames(1, 9))) == len(files.select([])) == 0
    assert len(files.select()) == 7


def test_missing_frames_are_counted() -> None:
    assert sequence(1, 2, 4).finish().missing_frames() == 1
    assert sequence(-3, 0).finish().missing_frames() == 2
    assert sequence().finish().missing_frames() == 0
    declared = sequence(1, 2, 4, output=BEAUTY._replace(frames=Frames(1, 10))).finish()
    assert declared.missing_frames() == 7
    assert declared.with_frames(Frames(3, 5)).missing_frames() == 2
    assert declared.with_frames(Frames(20, 30)).missing_frames() == 0
    assert sequence(1, 2, 4).finish().with_frames(Frames(2, 99)).missing_frames() == 1
    assert sequence().finish().with_frames(Frames(2, 99)).missing_frames() == 0
    two = OutputFilesBuilder(BEAUTY, OutputKind.SEQUENCE)
    two.add("beauty.-001.exr", version(1), -1)
    two.add("beauty.-0001.exr", version(2), -1)
    assert two.finish().missing_frames() == 0


def test_id_depends_on_every_file_and_on_the_format() -> None:
    files = three_outputs()
    one = OutputFilesBuilder(NOTES, OutputKind.DIRECTORY)
    one.add("ab", version(1))
    other_version = OutputFilesBuilder(NOTES, OutputKind.DIRECTORY)
    other_version.add("ab", FileVersion(1, 10, 1_000_000_007, 2))
    other_output = OutputFilesBuilder(NOTES._replace(name="n"), OutputKind.DIRECTORY)
    other_output.add("ab", version(1))
    lists = [
        files,
        files.select(["film"]),
        files.select(frames=Frames(1, 2)),
        files.select(frames=Frames(2, 4)),
    ]
    lists += [FileList([each.finish()]) for each in (one, other_version, other_output)]
    ids = [each.version_id(kind) for each in lists for kind in ("tar", "zip")]
    assert len(set(ids)) == len(ids) == 14
    assert {len(each) for each in ids} == {22}
    assert files.version_id("tar") == three_outputs().version_id("tar")


@given(st.lists(st.integers(-99, 99999), unique=True), st.integers(-99, 99999), st.integers(-99, 99999))
def test_selected_frames_are_those_in_the_range(frames: list[int], first: int, last: int) -> None:
    files = FileList([sequence(*sorted(frames)).finish()])
    chosen = files.select(frames=Frames(first, last))
    assert [file.frame for file in chosen] == [frame for frame in sorted(frames) if first <= frame <= last]
    assert chosen.select(frames=Frames(-99, 99999)).version_id("tar") == chosen.version_id("tar")


@given(st.lists(st.text("ab/é\N{SNOWMAN}", min_size=1), unique=True))
def test_paths_sort_by_their_bytes(paths: list[str]) -> None:
    builder = OutputFilesBuilder(NOTES, OutputKind.DIRECTORY)
    for path in sorted(paths):
        builder.add(path, version(1))
    files = FileList([builder.finish()])
    assert [files.find("notes", path) for path in sorted(paths)] == list(range(len(paths)))
    assert all(first < second for first, second in pairwise(file.path.encode() for file in files))


def test_a_file_takes_a_hundred_bytes() -> None:
    tracemalloc.start()
    try:
        builder = sequence(*range(100_000))
        files = FileList([builder.finish()])
        del builder
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / len(files) < 100
