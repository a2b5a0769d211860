"""The outputs of completed jobs, as they are found on disk."""

from __future__ import annotations

import marshal
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.domain.outputs import OutputKind
from jobsvc.storage.files.file_version import FileVersion
from jobsvc.storage.files.safe_open import DIRECTORY_FLAGS
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.jobs.snapshot import JobSnapshot
from jobsvc.storage.jobs.stat_check import is_unchanged
from jobsvc.storage.layout import OutputRoot
from tests.conftest import MakeJob, put

FILM = {"name": "film", "path": "output/film.mp4", "role": "main"}
BEAUTY = {"name": "beauty", "path": "output/beauty/a.####.exr"}
PASSES = {"name": "passes", "path": "output/passes"}


@pytest.fixture
def three(make_job: MakeJob) -> Path:
    """A job with a film, a sequence and a directory."""
    folder = make_job(status="completed", outputs=[FILM, BEAUTY, PASSES])
    put(folder / "output" / "film.mp4", b"film")
    put(folder / "output" / "beauty" / "a.0001.exr", b"frame")
    put(folder / "output" / "passes" / "depth.exr", b"depth")
    return folder


def kinds_of(snapshot: JobSnapshot) -> dict[str, OutputKind]:
    return {output.name: state.kind for output, state in snapshot.existing_outputs()}


def kind_at(make_job: MakeJob, root: JobsRoot, path: str) -> OutputKind | None:
    make_job(status="completed", outputPath=path)
    return root.read("job-1").main_kind


# Kinds -----------------------------------------------------------------------------------------------


def test_outputs_are_found_with_their_kind_and_version(root: JobsRoot, three: Path) -> None:
    snapshot = root.read("job-1")
    output = three / "output"
    paths = [output / "film.mp4", output / "beauty", output / "passes"]
    assert [(state.kind, state.version) for _, state in snapshot.existing_outputs()] == [
        (kind, FileVersion.of(path.stat()))
        for kind, path in zip(
            (OutputKind.FILE, OutputKind.SEQUENCE, OutputKind.DIRECTORY), paths, strict=True
        )
    ]


def test_main_file_among_several_outputs_is_opened(root: JobsRoot, three: Path) -> None:
    snapshot, file = root.read_and_open("job-1")
    assert file is not None
    assert (file.name, snapshot.output_version, snapshot.main_kind) == (
        "film.mp4",
        file.version,
        OutputKind.FILE,
    )
    file.close()


@pytest.mark.parametrize("path", ["output/passes", "output/passes/", "output/beauty/a.%04d.exr"])
def test_main_directory_or_sequence_is_an_output_but_no_file(
    root: JobsRoot, make_job: MakeJob, three: Path, path: str
) -> None:
    make_job(status="completed", outputPath=path)
    snapshot, file = root.read_and_open("job-1")
    assert file is None
    assert snapshot.output_version is None
    assert snapshot.has_output
    assert not snapshot.lacks_output


def test_existing_file_takes_precedence_over_a_pattern(
    root: JobsRoot, make_job: MakeJob, jobs_root: Path
) -> None:
    assert kind_at(make_job, root, "take#2.exr") is OutputKind.SEQUENCE
    put(jobs_root / "job-1" / "take#2.exr", b"frame")
    assert kind_at(make_job, root, "take#2.exr") is OutputKind.FILE


def test_directory_with_the_name_of_a_pattern_needs_a_slash(
    root: JobsRoot, make_job: MakeJob, jobs_root: Path
) -> None:
    make_job()
    (jobs_root / "job-1" / "take#2").mkdir()
    assert kind_at(make_job, root, "take#2") is OutputKind.SEQUENCE
    assert kind_at(make_job, root, "take#2/") is OutputKind.DIRECTORY


def test_file_at_a_path_that_ends_in_a_slash_is_no_output(
    root: JobsRoot, make_job: MakeJob, three: Path
) -> None:
    assert kind_at(make_job, root, "output/film.mp4/") is None
    assert kind_at(make_job, root, "output/a.####.exr/") is None


def test_sequence_needs_its_directory_but_no_frames(root: JobsRoot, make_job: MakeJob, three: Path) -> None:
    assert kind_at(make_job, root, "output/none/a.####.exr") is None
    assert kind_at(make_job, root, "output/passes/a.####.exr") is OutputKind.SEQUENCE


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.symlink_to("passes")


@pytest.mark.parametrize("make", [make_fifo, make_link])
def test_neither_a_fifo_nor_a_link_is_an_output(
    root: JobsRoot, make_job: MakeJob, three: Path, make: Callable[[Path], None]
) -> None:
    make(three / "output" / "other")
    assert kind_at(make_job, root, "output/other") is None
    assert kind_at(make_job, root, "output/other/depth.exr") is None


@pytest.mark.parametrize(
    "path", ["", ".", "..", "output/../output/passes", "/nowhere/passes", "a.##.##.exr", "\0"]
)
def test_path_that_leads_nowhere_is_a_missing_output(
    root: JobsRoot, make_job: MakeJob, three: Path, path: str
) -> None:
    make_job(status="completed", outputs=[{"name": "odd", "path": path or "."}, PASSES])
    snapshot = root.read("job-1")
    assert kinds_of(snapshot) == {"passes": OutputKind.DIRECTORY}
    assert snapshot.lacks_output


def test_unreadable_directory_is_a_missing_output(
    root: JobsRoot, three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if path == "passes" and not flags & os.O_PATH:
            raise PermissionError
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    assert kinds_of(root.read("job-1")) == {"film": OutputKind.FILE, "beauty": OutputKind.SEQUENCE}


def test_outputs_in_the_output_root_of_another_owner_are_missing(
    jobs_root: Path, make_job: MakeJob, tmp_path: Path
) -> None:
    put(tmp_path / "renders" / "a.0001.exr", b"frame")
    make_job(status="completed", owner="anna", outputPath=str(tmp_path / "renders" / "a.####.exr"))
    assert JobsRoot(jobs_root, [OutputRoot("anna", tmp_path / "renders")]).read("job-1").has_output
    assert not JobsRoot(jobs_root, [OutputRoot("bert", tmp_path / "renders")]).read("job-1").has_output


def test_only_a_completed_job_has_outputs(root: JobsRoot, make_job: MakeJob, three: Path) -> None:
    make_job(status="rendering", outputs=[FILM, BEAUTY, PASSES])
    snapshot = root.read("job-1")
    assert snapshot.existing_outputs() == []
    assert not snapshot.has_output


def test_fault_of_a_later_output_is_a_storage_error(
    root: JobsRoot, three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def fail(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == "passes":
            raise OSError(5, "broken disk")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="broken disk"):
        root.read("job-1")


# Snapshots -------------------------------------------------------------------------------------------


def test_job_with_one_file_keeps_no_states(root: JobsRoot, make_job: MakeJob) -> None:
    make_job(output=b"film")
    snapshot = root.read("job-1")
    assert snapshot.packed_outputs is None
    assert kinds_of(snapshot) == {"main": OutputKind.FILE}


def test_snapshot_with_outputs_survives_encoding(root: JobsRoot, three: Path) -> None:
    snapshot = root.read("job-1")
    again = JobSnapshot.from_tuple("job-1", marshal.loads(marshal.dumps(snapshot.to_tuple())))  # noqa: S302 - our own
    assert again == snapshot
    assert again.with_job(snapshot.job) == snapshot
    assert again.existing_outputs() == snapshot.existing_outputs()


def test_unchanged_outputs_give_the_known_snapshot(root: JobsRoot, three: Path) -> None:
    known = JobSnapshot.from_tuple("job-1", (*root.read("job-1").to_tuple()[:-1], True))
    assert root.read("job-1", known) is known


def test_file_added_to_a_directory_is_another_version(root: JobsRoot, three: Path) -> None:
    known = root.read("job-1")
    (three / "output" / "passes" / "normal.exr").write_bytes(b"normal")
    os.utime(three / "output" / "passes", (0, 0))
    now = root.read("job-1")
    assert not now.has_same_outputs(known)
    assert now.kinds == known.kinds


def test_lost_output_is_kept_from_the_known_snapshot(root: JobsRoot, three: Path) -> None:
    known = root.read("job-1")
    (three / "output" / "film.mp4").unlink()
    shutil.rmtree(three / "output" / "passes")
    now = root.read("job-1")
    assert kinds_of(now) == {"beauty": OutputKind.SEQUENCE}
    assert now.lost_output(known)
    assert not known.lost_output(now)
    assert now.with_outputs_of(known) == known


@pytest.mark.parametrize("path", ["output/passes", "output/film.mp4"])
def test_lost_main_output_is_kept_from_the_known_snapshot(
    root: JobsRoot, make_job: MakeJob, three: Path, path: str
) -> None:
    make_job(status="completed", outputPath=path)
    known = root.read("job-1")
    (three / "output").rename(three / "away")
    now = root.read("job-1")
    assert not now.has_output
    assert now.lost_output(known)
    assert now.with_outputs_of(known) == known


# stat_check ------------------------------------------------------------------------------------------


def add_frame(folder: Path) -> None:
    (folder / "output" / "beauty" / "a.0002.exr").write_bytes(b"frame")
    os.utime(folder / "output" / "beauty", (0, 0))


def replace_film(folder: Path) -> None:
    put(folder / "output" / "film.mp4", b"another")


def film_to_directory(folder: Path) -> None:
    (folder / "output" / "film.mp4").unlink()
    (folder / "output" / "film.mp4").mkdir()


def remove_passes(folder: Path) -> None:
    shutil.rmtree(folder / "output" / "passes")


def passes_to_file(folder: Path) -> None:
    remove_passes(folder)
    (folder / "output" / "passes").write_bytes(b"pass")


def passes_to_link(folder: Path) -> None:
    (folder / "output" / "passes").rename(folder / "passes")
    (folder / "output" / "passes").symlink_to(folder / "passes")


def remove_everything(folder: Path) -> None:
    shutil.rmtree(folder / "output")


def literal_name_of_the_pattern(folder: Path) -> None:
    (folder / "output" / "beauty" / "a.####.exr").write_bytes(b"frame")


@pytest.mark.parametrize(
    "change",
    [
        add_frame, replace_film, film_to_directory, remove_passes, passes_to_file, passes_to_link,
        remove_everything, literal_name_of_the_pattern,
    ],
)  # fmt: skip
def test_stat_check_sees_every_change_of_an_output(
    root: JobsRoot, three: Path, change: Callable[[Path], None]
) -> None:
    descriptor = os.open(root.path, DIRECTORY_FLAGS)
    try:
        for state in ("before", "after"):
            known = JobSnapshot.from_tuple("job-1", (*root.read("job-1").to_tuple()[:-1], True))
            assert is_unchanged(descriptor, "job-1", known), state
            if state == "before":
                change(three)
                assert not is_unchanged(descriptor, "job-1", known)
    finally:
        os.close(descriptor)


NAMES = st.sampled_from(["a", "b", "f.####", "f.0001", "t#2"])
PATHS = st.lists(NAMES | st.sampled_from([".", "..", ""]), min_size=1, max_size=3).map(
    lambda names: "/".join([".", *names])
)
ENTRIES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=2).map("/".join),
    st.sampled_from(["file", "directory", "link", "fifo"]),
)


def make_tree(folder: Path, entries: dict[str, str]) -> None:
    for path, kind in entries.items():
        with suppress(FileExistsError, NotADirectoryError):
            (folder / path).parent.mkdir(exist_ok=True)
            if kind == "file":
                (folder / path).touch()
            elif kind == "directory":
                (folder / path).mkdir()
            elif kind == "link":
                (folder / path).symlink_to("a")
            else:
                os.mkfifo(folder / path)


@given(entries=ENTRIES, paths=st.lists(PATHS, min_size=1, max_size=3))
def test_outputs_of_any_tree_are_found_alike_by_open_and_by_stat(
    entries: dict[str, str], paths: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = JobsRoot(Path(scratch))
        (root.path / "job-1").mkdir()
        make_tree(root.path / "job-1", entries)
        outputs = [{"name": f"o{number}", "path": path or "."} for number, path in enumerate(paths)]
        record = {"status": "completed", "owner": "anna", "outputs": outputs}
        put(root.path / "job-1" / "status.json", orjson.dumps(record))
        snapshot, file = root.read_and_open("job-1")
        assert file is None
        known = JobSnapshot.from_tuple("job-1", (*snapshot.to_tuple()[:-1], True))
        descriptor = os.open(root.path, DIRECTORY_FLAGS)
        assert is_unchanged(descriptor, "job-1", known)
        os.close(descriptor)


def test_sequence_in_a_directory_that_cannot_be_listed_is_missing(
    root: JobsRoot, three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobsvc.storage.jobs.output_finder.os.access", lambda *_, **__: False)
    assert "beauty" not in kinds_of(root.read(three.name))
