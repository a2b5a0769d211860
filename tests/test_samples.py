from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from jobsvc.cli import main
from jobsvc.domain.job import Job, Status
from jobsvc.domain.outputs import OutputKind
from jobsvc.domain.status_record import parse_record
from jobsvc.storage.jobs.reader import JobsRoot
from tests import sample_jobs

SAMPLES = Path(__file__).parents[1] / "sample_jobs"
GOOD = sorted(record.parent.name for record in SAMPLES.glob("*/status.json"))
BROKEN = sorted(entry.name for entry in (SAMPLES / "broken").iterdir() if entry.is_dir())
FILMS = sorted(SAMPLES.glob("*/output/*.mp4"))


def _job(name: str) -> Job:
    return parse_record(name, orjson.loads((SAMPLES / name / "status.json").read_bytes()), 0)


def _table(page: Path) -> dict[str, str]:
    """Return the first and last cells of every row whose first cell is code."""
    rows = (line.strip("|").split(" | ") for line in page.read_text("utf-8").splitlines() if "| `" in line)
    return {row[0].strip(" `"): row[-1].strip() for row in rows}


@pytest.mark.parametrize("name", GOOD)
def test_every_sample_is_a_valid_record(name: str) -> None:
    assert _job(name).id == name


@pytest.mark.parametrize("name", GOOD)
def test_sample_has_an_output_exactly_if_it_is_completed(name: str) -> None:
    snapshot = JobsRoot(SAMPLES).read(name)
    assert snapshot.has_output is (snapshot.job.status is Status.COMPLETED)


def test_samples_are_what_the_writer_writes(tmp_path: Path) -> None:
    """Byte for byte: `python -m tests.sample_jobs` writes them again."""
    names = sample_jobs.make_all(tmp_path)
    assert {_job(name).status for name in names} == {Status.RENDERING, Status.COMPLETED, Status.FAILED}
    for name in names:
        assert _files(tmp_path / name) == _files(SAMPLES / name)


def _files(folder: Path) -> dict[str, bytes]:
    """Return the files below a directory: content by path."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


def test_samples_show_every_state_and_two_owners() -> None:
    jobs = [_job(name) for name in GOOD]
    assert {job.status for job in jobs} == set(Status)
    assert {job.owner for job in jobs} == {"demo", "other-studio"}
    assert {job.details.source_status for job in jobs} >= {"done", "pending", "cancelled", None}


def test_log_of_the_failed_sample_has_the_reason() -> None:
    log = JobsRoot(SAMPLES).log_tail(_job("turntable-0013"))
    assert log is not None
    assert "plates/plate_0019.png has 2000 bytes" in log


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_film_is_an_mp4_with_its_index_at_the_start(film: Path) -> None:
    data = film.read_bytes()
    assert data[4:8] == b"ftyp"
    assert 0 < data.find(b"moov") < data.find(b"mdat")


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="no ffprobe")
@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_film_is_h264_that_every_player_supports(film: Path) -> None:
    entries = "stream=codec_name,pix_fmt"
    result = subprocess.check_output(
        ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "csv=p=0", film]
    )
    assert result.strip() == b"h264,yuv420p"


def test_still_is_a_complete_jpeg() -> None:
    data = (SAMPLES / "poster-frame-0007/output/poster.jpg").read_bytes()
    assert (data[:3], data[-2:]) == (b"\xff\xd8\xff", b"\xff\xd9")


def test_frames_of_the_sequence_are_complete_pngs() -> None:
    frames = sorted((SAMPLES / "star-turn-0420/output").iterdir())
    assert len(frames) == 12
    assert all(frame.read_bytes()[:4] == b"\x89PNG" for frame in frames)
    assert all(frame.read_bytes()[-8:-4] == b"IEND" for frame in frames)


def test_samples_show_a_sequence_and_a_job_with_two_outputs() -> None:
    root = JobsRoot(SAMPLES)
    kinds = {name: [state.kind for _, state in root.read(name).existing_outputs()] for name in GOOD}
    assert kinds["star-turn-0420"] == [OutputKind.SEQUENCE]
    assert kinds["teaser-0031"] == [OutputKind.FILE, OutputKind.FILE]


def test_one_output_has_a_name_that_is_not_ascii() -> None:
    assert any(not film.name.isascii() for film in FILMS)


def test_all_samples_are_under_a_megabyte() -> None:
    files = [file for file in SAMPLES.rglob("*") if file.is_file() and not file.is_symlink()]
    assert sum(file.stat().st_size for file in files) < 1_000_000


def test_readme_names_every_sample_and_no_other() -> None:
    assert sorted(_table(SAMPLES / "README.md")) == GOOD


def test_readme_of_the_broken_samples_names_every_specimen_and_no_other() -> None:
    assert sorted(_table(SAMPLES / "broken/README.md")) == BROKEN


def test_check_reports_each_specimen_as_its_readme_says() -> None:
    result = CliRunner().invoke(main, ["check", "--json", str(SAMPLES / "broken")])
    assert result.exit_code == 1
    *findings, _ = map(orjson.loads, result.output.splitlines())
    reasons = {finding["job"]: finding["reason"] for finding in findings}
    for name, cell in _table(SAMPLES / "broken/README.md").items():
        if cell.startswith("`"):
            expected = re.escape(cell.strip("`")).replace("…", ".+")
            assert re.fullmatch(expected, reasons.pop(name, "nothing")), name
    assert reasons == {}, "findings that are not in the README"


def test_check_finds_nothing_wrong_with_the_samples() -> None:
    result = CliRunner().invoke(main, ["check", str(SAMPLES)])
    assert result.exit_code == 0
    assert result.output.splitlines()[:3] == [
        "star-turn-0420: 12 files, 4042 bytes",
        "teaser-0031: 2 files, 39013 bytes",
        "10 jobs, 0 with a finding; 3 other names ignored",
    ]


def test_no_job_reaches_files_outside_its_directory() -> None:
    root = JobsRoot(SAMPLES / "broken")
    for name in BROKEN:
        try:
            snapshot = root.read(name)
        except Exception:  # noqa: BLE001, S112 - the refusal itself is the tests' above
            continue
        assert not snapshot.output_version, name
        assert "has left the job's directory" not in (root.log_tail(snapshot.job) or ""), name
