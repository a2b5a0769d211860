from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobsvc.cli import main
from jobsvc.settings import OPTIONS


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for option in OPTIONS:
        monkeypatch.delenv(option.variable, raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "jobs"
    root.mkdir()
    return root


def job(root: Path, name: str, record: dict[str, Any] | bytes | None, *outputs: str) -> None:
    (root / name).mkdir()
    for output in outputs:
        (root / name / output).write_bytes(b"rendered")
    if isinstance(record, dict):
        record = json.dumps({"owner": "ada", **record}).encode()
    if record is not None:
        (root / name / "status.json").write_bytes(record)


def check(root: Path, *words: str | Path, **variables: str) -> Result:
    return CliRunner().invoke(main, ["check", str(root), *map(str, words)], env=variables)


def test_a_sound_root_has_no_finding(root: Path) -> None:
    job(root, "a", {"status": "queued"})
    job(root, "b", {"status": "done", "outputPath": "film.mp4"}, "film.mp4")
    (root / ".hidden").mkdir()
    told = check(root)
    assert told.output == "2 jobs, 0 with a finding; 1 other names ignored\n"
    assert told.exit_code == 0


def test_every_bad_job_is_named_with_its_reason_in_order(root: Path) -> None:
    job(root, "e-lost", {"status": "completed", "outputPath": "../b-half/status.json"})
    job(root, "d-nothing", {"status": "completed"})
    job(root, "c-empty", None)
    job(root, "b-half", b'{"owner": "ada", "sta')
    job(root, "a-word", {"status": "paused"})
    told = check(root)
    lines = told.output.splitlines()
    assert told.exit_code == 1
    assert lines[0] == "a-word: status: 'paused' is no known word"
    assert lines[1].startswith("b-half: status.json: not JSON (")
    assert lines[2:] == [
        "c-empty: status.json: missing, or not a regular file",
        "d-nothing: outputPath: missing, though the job is completed",
        "e-lost: outputPath: '../b-half/status.json' leads to no regular file that may be served",
        "5 jobs, 5 with a finding; 0 other names ignored",
    ]


def test_a_word_or_a_folder_of_the_operator_s_makes_a_job_sound(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "film.mp4").touch()
    job(root, "a", {"status": "paused"})
    job(root, "b", {"status": "done", "outputPath": f"{tmp_path}/out/film.mp4"})
    assert check(root).exit_code == 1
    assert check(root, "--output-root", tmp_path / "out", "--status-alias", "paused=queued").exit_code == 0
    config = tmp_path / "jobsvc.toml"
    config.write_text('output-root = "out"\nstatus-alias = ["paused=queued"]\n')
    assert check(root, JOBSVC_CONFIG=str(config)).exit_code == 0


def test_json_lines_end_with_the_summary(root: Path) -> None:
    job(root, "a", None)
    job(root, "b", {"status": "queued"})
    told = check(root, "--json")
    assert [json.loads(line) for line in told.output.splitlines()] == [
        {
            "job": "a",
            "code": "record-missing",
            "reason": "status.json: missing, or not a regular file",
        },
        {"jobs": 2, "findings": 1, "ignored": 0},
    ]


def test_a_fault_of_storage_is_a_finding_of_its_job_alone(root: Path) -> None:
    job(root, "a", {"status": "done", "outputPath": f"{root.parent}/gone/film.mp4"})
    job(root, "b", {"status": "queued"})
    told = check(root, "--output-root", root.parent / "gone")
    assert told.output.splitlines() == [
        "a: storage: No such file or directory",
        "2 jobs, 1 with a finding; 0 other names ignored",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["/missing"], "Error: jobs-root: '/missing' can't be listed: No such file or directory\n"),
        ([], "Error: jobs-root: the folder of the job directories is not given"),
        (["/", "--status-alias", "x"], "Error: status-alias: 'x' is not WORD=STATUS"),
    ],
)
def test_wrong_use_is_told_in_one_line(words: list[str], said: str) -> None:
    told = CliRunner().invoke(main, ["check", *words])
    assert told.exit_code == 2
    assert told.output.startswith(said)
    assert told.output.count("\n") == 1


def test_a_real_process_ends_with_1_at_a_finding(
    jobsvc: Callable[..., CompletedProcess[str]], root: Path
) -> None:
    job(root, "a", None)
    told = jobsvc("check", str(root))
    assert (told.returncode, told.stderr) == (1, "")
