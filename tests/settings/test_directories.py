from __future__ import annotations

import stat
from pathlib import Path

import pytest

from jobsvc.settings import default_state_dir
from jobsvc.settings.directories import check_disjoint, check_readable, make_writable


def test_state_directory_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    monkeypatch.setenv("JOBSVC_STATE_DIR", "/var/lib/jobsvc")
    assert default_state_dir() == Path("/var/lib/jobsvc")


def test_state_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert default_state_dir() == Path("/elsewhere/jobsvc")


@pytest.mark.parametrize("ignored", ["", "relative/folder"])
def test_relative_xdg_directory_is_ignored(ignored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", ignored)
    assert default_state_dir() == Path.home() / ".local/state/jobsvc"


def test_state_directory_is_required_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSVC_STATE_DIR", "~nobody-of-this-name/x")
    with pytest.raises(ValueError, match="no home directory"):
        default_state_dir()


def test_directory_is_created_only_for_its_owner(tmp_path: Path) -> None:
    made = tmp_path / "a" / "b"
    make_writable(made)
    make_writable(made)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert list(made.iterdir()) == []


@pytest.mark.parametrize("hopeless", ["/proc/self/jobsvc", "/proc/self", "/dev/null", "/dev/null/x"])
def test_directory_that_cannot_be_created_or_written_is_refused(hopeless: str) -> None:
    with pytest.raises(ValueError, match="cannot be created or written: "):
        make_writable(Path(hopeless))


def test_only_a_directory_is_readable(tmp_path: Path) -> None:
    check_readable(tmp_path)
    file = tmp_path / "file"
    file.touch()
    for wrong in (file, tmp_path / "missing"):
        with pytest.raises(ValueError, match="is not a readable directory: "):
            check_readable(wrong)


def test_state_directory_is_separate_from_served_directories(tmp_path: Path) -> None:
    jobs, state, outputs = tmp_path / "jobs", tmp_path / "state", tmp_path / "outputs"
    check_disjoint(state, jobs, (outputs,))
    for inside in (jobs, jobs / "state"):
        with pytest.raises(ValueError, match="is inside the jobs root"):
            check_disjoint(inside, jobs, ())
    with pytest.raises(ValueError, match="contains the jobs root"):
        check_disjoint(tmp_path, jobs, ())
    with pytest.raises(ValueError, match="is inside the output root"):
        check_disjoint(outputs / "state", jobs, (tmp_path / "other", outputs))


def test_links_do_not_hide_the_state_directory(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (tmp_path / "link").symlink_to(jobs)
    with pytest.raises(ValueError, match="is inside the jobs root"):
        check_disjoint(tmp_path / "link" / "state", jobs, ())
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(ValueError, match="cannot be resolved"):
        check_disjoint(tmp_path / "round", jobs, ())
