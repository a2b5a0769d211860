"""Listing the files of a job's outputs on disk."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobsvc.domain.errors import TooManyFiles
from jobsvc.domain.outputs import Frames, Output, OutputKind
from jobsvc.storage.archive import lister, output_folder
from jobsvc.storage.archive.file_list import FileList
from jobsvc.storage.archive.lister import list_files
from jobsvc.storage.archive.stepped_work import SteppedWork
from jobsvc.storage.files.file_version import FileVersion
from tests.storage.archive.trees import FolderSource, listed, run, write_files

BEAUTY = Output("beauty", "out/beauty.####.exr")
ALL = Output("all", "out")
NOT_UTF8 = os.fsdecode(b"\xff" * 255)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def paths(files: FileList) -> list[str]:
    return [file.path for file in files]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def caching_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system may report a name as absent that exists."""
    monkeypatch.setattr(output_folder, "may_cache_names", lambda _device: True)
    monkeypatch.setattr("jobsvc.storage.files.safe_open.may_cache_names", lambda _device: True)


def test_file_is_listed_by_its_name_and_version(tmp_path: Path) -> None:
    write_files(tmp_path, {"out/film.mp4": b"1234"})
    files = listed(tmp_path, Output("film", "out/film.mp4"))
    assert paths(files) == ["film.mp4"]
    assert files[0].version == FileVersion.of((tmp_path / "out/film.mp4").stat())
    assert files.outputs[0].kind is OutputKind.FILE


def test_sequence_is_sorted_by_frame_and_has_only_its_frames(tmp_path: Path) -> None:
    names = ["beauty.-0003.exr", "beauty.0002.exr", "beauty.0010.exr", "beauty.10001.exr"]
    others = ["beauty.12.exr", "depth.0001.exr", "beauty.0001.png", "x"]
    write_files(tmp_path, {f"out/{name}": b"1" for name in [*names, *others]})
    files = listed(tmp_path, BEAUTY)
    assert paths(files) == names
    assert [file.frame for file in files] == [-3, 2, 10, 10001]
    assert (files.outputs[0].kind, files.outputs[0].skipped) == (OutputKind.SEQUENCE, 0)
    assert paths(listed(tmp_path, BEAUTY._replace(frames=Frames(0, 10)))) == names[1:3]


def test_sequence_can_be_in_the_job_directory(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.1.exr": b"", "a.2.exr": b""})
    assert paths(listed(tmp_path, Output("a", "a.%d.exr"))) == ["a.1.exr", "a.2.exr"]


def test_file_whose_name_is_the_pattern_is_a_single_file(tmp_path: Path) -> None:
    write_files(tmp_path, {"shot#1.mp4": b"film", "shot01.mp4": b"other"})
    files = listed(tmp_path, Output("main", "shot#1.mp4"))
    assert paths(files) == ["shot#1.mp4"]
    assert files.outputs[0].kind is OutputKind.FILE


def test_file_that_has_two_placeholders_in_its_name_is_a_single_file(tmp_path: Path) -> None:
    write_files(tmp_path, {"#1#.mp4": b"film"})
    assert paths(listed(tmp_path, Output("main", "#1#.mp4"))) == ["#1#.mp4"]


def test_directory_is_listed_with_all_below_it_in_the_order_of_paths(tmp_path: Path) -> None:
    names = ["a", "a-b", "a.b/c", "a/b", "a/b.c", "a0", ".hidden", "b/.c/d/e", "é", "\N{SNOWMAN}/x"]
    names.remove("a")
    write_files(tmp_path, {f"out/{name}": name.encode() for name in names})
    for path in ("out", "out/"):
        files = listed(tmp_path, Output("all", path))
        assert paths(files) == sorted(names, key=str.encode)
        assert files.outputs[0].kind is OutputKind.DIRECTORY
        assert [file.version.size for file in files] == [len(file.path.encode()) for file in files]


def test_outputs_that_do_not_exist_have_no_files(tmp_path: Path) -> None:
    outputs = [
        Output(str(number), path) for number, path in enumerate(["no", "no/", "no/f.##", "../x", "a\0"])
    ]
    files = listed(tmp_path, *outputs)
    assert len(files) == 0
    assert [part.output for part in files.outputs] == outputs
    assert [part.expected for part in files.outputs] == [None] * 5


def test_everything_but_regular_files_is_left_out_and_counted(tmp_path: Path, folder: Path) -> None:
    write_files(tmp_path, {"elsewhere/beauty.0001.exr": b"secret", "out/beauty.0007.exr": b""})
    (folder / "beauty.0001.exr").symlink_to(tmp_path / "elsewhere/beauty.0001.exr")
    (folder / "beauty.0002.exr").symlink_to("nowhere")
    os.mkfifo(folder / "beauty.0003.exr")
    (folder / "beauty.0004.exr").mkdir()
    os.mknod(folder / "beauty.0006.exr", stat.S_IFIFO | 0o600)
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket must be short
        try:
            listener.bind("beauty.0005.exr")
        finally:
            os.chdir(here)
    files = listed(tmp_path, BEAUTY)
    assert paths(files) == ["beauty.0007.exr"]
    assert files.outputs[0].skipped == 6
    assert listed(tmp_path, ALL).outputs[0].skipped == 5


def test_links_to_directories_are_not_followed(tmp_path: Path, folder: Path) -> None:
    write_files(tmp_path, {"elsewhere/secret": b"1"})
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert len(listed(tmp_path, ALL)) == 0


@pytest.mark.parametrize("name", [NOT_UTF8, "..\\..\\evil", "\udc80"])
def test_names_that_cannot_be_unpacked_everywhere_are_left_out_and_counted(
    tmp_path: Path, folder: Path, name: str
) -> None:
    write_files(tmp_path, {f"out/{name}": b"1", f"sub/{name}/x": b"1", "sub/y": b"1"})
    files = listed(tmp_path, ALL, Output("sub", "sub"), Output("one", f"out/{name}"))
    assert paths(files) == ["y"]
    assert [part.unusable for part in files.outputs] == [1, 1, 1]
    write_files(tmp_path, {f"out/{name[:200]}0001.x": b""})
    assert listed(tmp_path, Output("s", f"out/{name[:200]}####.x")).outputs[0].unusable == 1


def test_paths_that_cannot_be_opened_later_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = "/".join(["d"] * 63)
    write_files(tmp_path, {f"out/{deep[2:]}/f": b"", f"out/{deep}/g": b"", "out/h": b""})
    files = listed(tmp_path, ALL)
    assert paths(files) == [f"{deep[2:]}/f", "h"]
    assert files.outputs[0].unusable == 1
    monkeypatch.setattr(lister, "MAX_PATH_LENGTH", 6)
    assert paths(listed(tmp_path, ALL)) == ["h"]


def test_files_and_directories_that_cannot_be_read_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"out/private": b"", "out/public": b"", "out/dir/x": b"", "out/other/y": b""})
    (tmp_path / "out/private").chmod(0o600)
    (tmp_path / "out/public").chmod(0o644)
    real_open, real_stat = os.open, os.stat
    (tmp_path / "out/other/y").chmod(0o644)

    def denied_open(path: Any, flags: int, *, dir_fd: int | None = None) -> int:
        if path == "dir":
            raise PermissionError(errno.EACCES, "denied", path)
        return real_open(path, flags, dir_fd=dir_fd)

    def denied_stat(path: Any, **options: Any) -> os.stat_result:
        if path == "y":
            raise PermissionError(errno.EACCES, "denied", path)
        return real_stat(path, **options)

    monkeypatch.setattr(os, "access", lambda *_args, **_options: False)
    monkeypatch.setattr(os, "open", denied_open)
    monkeypatch.setattr(os, "stat", denied_stat)
    files = listed(tmp_path, ALL)
    assert paths(files) == ["public"]
    assert files.outputs[0].skipped == 3


def test_output_directory_that_cannot_be_read_has_no_files(tmp_path: Path, folder: Path) -> None:
    class Denying(FolderSource):
        def open_directory(self, path: str) -> int:
            raise PermissionError(errno.EACCES, "denied", path)

    steps = SteppedWork(list_files([ALL], Denying(tmp_path)))
    while not steps.step():
        pass
    assert (len(steps.result), steps.result.outputs[0].skipped) == (0, 1)


def test_files_that_appear_or_go_while_they_are_listed_are_listed_or_not(
    tmp_path: Path, folder: Path
) -> None:
    write_files(tmp_path, {f"out/beauty.{frame:04d}.exr": b"1" for frame in range(500)})
    (folder / "sub").mkdir()
    work = list_files([BEAUTY, ALL], FolderSource(tmp_path))
    for _ in range(40):  # the names are read, the first files too
        next(work)
    for frame in range(100, 500):
        (folder / f"beauty.{frame:04d}.exr").unlink()
    write_files(tmp_path, {"out/beauty.9999.exr": b""})
    result = run(work)
    assert [file.frame for file in result.select(["beauty"])] == list(range(100))
    assert len(result.select(["all"])) == 101


def test_directory_that_goes_or_becomes_a_link_while_it_is_listed_is_left_out(
    tmp_path: Path, folder: Path
) -> None:
    write_files(tmp_path, {"out/a": b"", "out/b/x": b"", "out/c/x": b"", "secret/x": b""})
    work = list_files([ALL], FolderSource(tmp_path))
    for _ in range(3):
        next(work)
    for name in ("b", "c"):
        (folder / name / "x").unlink()
        (folder / name).rmdir()
    (folder / "c").symlink_to(tmp_path / "secret")
    assert paths(run(work)) == ["a"]


@pytest.mark.parametrize("output", [BEAUTY, ALL])
def test_more_than_the_maximum_of_files_is_an_error_that_names_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: Output
) -> None:
    monkeypatch.setattr(lister, "MAX_FILES", 10)
    write_files(tmp_path, {f"out/beauty.{frame:04d}.exr": b"" for frame in range(10)})
    assert len(listed(tmp_path, output)) == 10
    write_files(tmp_path, {"film": b""})
    with pytest.raises(TooManyFiles, match="more than 10 files"):
        listed(tmp_path, output, Output("film", "film"))


def test_more_than_the_maximum_of_directories_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lister, "MAX_FILES", 3)
    for number in range(4):
        (tmp_path / f"out/{number}").mkdir(parents=True)
    with pytest.raises(TooManyFiles):
        listed(tmp_path, ALL)


def test_file_with_the_pattern_as_its_name_counts_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lister, "MAX_FILES", 4)
    write_files(tmp_path, {f"a{number}": b"" for number in (*range(4), "#")})
    assert paths(listed(tmp_path, Output("a", "a#"), Output("b", "a#"))) == ["a#", "a#"]


def test_directory_of_several_sequences_is_listed_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 256 sequences of 380 frames, listing it for each took 41 s instead of 1.4."""
    names = [f"{name}.{frame:04}.exr" for name in ("a", "a.1", "b", "long") for frame in (1, 2)]
    write_files(folder, dict.fromkeys([*names, "b.####.exr", "other"], b""))
    (folder / "a.0003.exr").symlink_to("other")
    scans = []
    entries = output_folder.OutputFolder.entries

    def scan(opened: output_folder.OutputFolder) -> Iterator[os.DirEntry[str]]:
        scans.append(opened)
        return entries(opened)

    monkeypatch.setattr(output_folder.OutputFolder, "entries", scan)
    paths_of = {
        "a": "a.####.exr",
        "one": "a.1.####.exr",
        "b": "b.####.exr",
        "l": "long.%04d.exr",
        "n": "no.#",
    }
    files = listed(tmp_path, *(Output(name, f"out/{path}") for name, path in paths_of.items()))
    assert paths(files) == [*names[:4], "b.####.exr", *names[6:]]
    assert [part.skipped for part in files.outputs] == [1, 0, 0, 0, 0]
    assert len(scans) == 1


class Faults:
    """Makes os.stat fail for a name, a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, times: int) -> None:
        self._real = os.stat
        self._name, self._code, self.left = name, code, times
        monkeypatch.setattr(os, "stat", self.stat)

    def stat(self, path: Any, **options: Any) -> os.stat_result:
        if path == self._name and self.left:
            self.left -= 1
            raise OSError(self._code, os.strerror(self._code), path)
        return self._real(path, **options)


@pytest.mark.usefixtures("caching_names")
@pytest.mark.parametrize("code", [errno.ENOENT, errno.ESTALE])
def test_cached_absence_of_a_file_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write_files(tmp_path, {"out/a": b"", "out/b": b""})
    faults = Faults(monkeypatch, "b", code, 2)
    assert paths(listed(tmp_path, ALL)) == ["a", "b"]
    assert faults.left == 0


@pytest.mark.usefixtures("caching_names")
def test_file_that_is_listed_but_never_found_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"out/a": b"", "out/b": b""})
    Faults(monkeypatch, "b", errno.ENOENT, 99)
    with pytest.raises(OSError, match="listed, but not found"):
        listed(tmp_path, ALL)


@pytest.mark.usefixtures("caching_names")
def test_removed_files_are_believed_on_network_storage_after_one_listing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {f"out/{name}": b"" for name in "abcd"})
    listings: list[int] = []
    real = os.listdir

    def listdir(fd: int) -> list[str]:
        listings.append(fd)
        return real(fd)

    monkeypatch.setattr(os, "listdir", listdir)
    work = list_files([ALL], FolderSource(tmp_path))
    for _ in range(3):
        next(work)
    for name in "bcd":
        (folder / name).unlink()
    assert paths(run(work)) == ["a"]
    assert len(listings) == 1


def test_storage_fault_is_raised_and_keeps_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, {"out/a": b"", "out/sub/b": b""})
    Faults(monkeypatch, "b", errno.EIO, 1)
    before = open_descriptors()
    with pytest.raises(OSError, match="Input/output error"):
        listed(tmp_path, ALL)
    assert open_descriptors() == before


def test_listing_that_is_given_up_keeps_no_descriptor(tmp_path: Path) -> None:
    write_files(tmp_path, {"out/a": b"", "out/sub/b": b"", "out/sub/sub/c": b""})
    before = open_descriptors()
    for steps in range(1, 8):
        work = list_files([ALL], FolderSource(tmp_path))
        for _ in range(steps):
            next(work)
        work.close()
        assert open_descriptors() == before


def tree(depth: int = 3) -> st.SearchStrategy[Any]:
    name = st.text("ab.-/0é", min_size=1, max_size=3).filter(lambda name: "/" not in name and name.strip("."))
    return st.recursive(
        st.binary(max_size=3), lambda below: st.dictionaries(name, below, max_size=4), max_leaves=9
    )


def flattened(node: Any, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    if isinstance(node, bytes):
        yield prefix, node
        return
    for name, below in node.items():
        yield from flattened(below, f"{prefix}/{name}" if prefix else name)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nodes=st.dictionaries(st.sampled_from("abc"), tree(), max_size=3))
def test_all_files_of_random_trees_are_listed_in_order(
    nodes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    expected = dict(flattened(nodes))
    write_files(root, {f"out/{name}": content for name, content in expected.items()})
    files = listed(root, ALL)
    assert paths(files) == sorted(expected, key=str.encode)
    assert [file.version.size for file in files] == [len(expected[file.path]) for file in files]


@pytest.mark.parametrize("count", [0, 1, 2047, 2048, 2049, 5000])
def test_names_are_sorted_whatever_their_number(tmp_path: Path, folder: Path, count: int) -> None:
    for number in range(count):
        (folder / f"f.{number * 7919 % max(count, 1)}.x").touch()
    files = listed(tmp_path, ALL)
    assert paths(files) == sorted(f"f.{number}.x" for number in range(count))
    assert [file.frame for file in listed(tmp_path, Output("s", "out/f.#.x"))] == list(range(count))


def test_sequence_in_a_directory_that_cannot_be_opened_is_counted(tmp_path: Path) -> None:
    class Denied(FolderSource):
        def open_parent(self, path: str) -> int:
            raise PermissionError(errno.EACCES, "denied", path)

    files = run(list_files([BEAUTY], Denied(tmp_path)))
    assert (len(files), files.outputs[0].skipped) == (0, 1)


def test_name_that_cannot_be_checked_is_no_file_and_a_fault_is_raised(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(code: int) -> Any:
        def fail(*_: object, **__: object) -> os.stat_result:
            raise OSError(code, "failed")

        return fail

    opened = output_folder.OutputFolder(os.open(folder, os.O_PATH | os.O_DIRECTORY))
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", failing(errno.EACCES))
            denied = opened.has_file("x")
        assert not denied
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", failing(errno.EIO))
            with pytest.raises(OSError, match="failed"):
                opened.has_file("x")
    finally:
        opened.close()
