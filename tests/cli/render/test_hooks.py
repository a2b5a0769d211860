"""Hooks write a job step by step with `jobsvc farm`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobsvc import farm
from jobsvc.cli import main
from tests.eventually import wait_until


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory for jobs, which the commands use."""
    monkeypatch.setattr(farm, "STABLE_S", 0.01)
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 15)
    monkeypatch.setenv("JOBSVC_JOBS_ROOT", str(tmp_path))
    return tmp_path


def run(*words: str, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["farm", *words], input=text)


def created(*options: str) -> None:
    result = run("create", "--owner", "acme", "--id", "title", *options)
    assert (result.exit_code, result.output) == (0, "title\n")


def record(root: Path) -> dict[str, Any]:
    return dict(json.loads((root / "title" / "status.json").read_bytes()))


def test_job_is_written_from_queued_to_completed(root: Path) -> None:
    created("--output", "output/title.mp4", "--project", "title.blend", "--metadata", '{"shot": "op_0010"}')
    assert record(root)["status"] == "queued"
    assert run("progress", "title", "40", "--phase", "beauty", "--frames", "100/250").exit_code == 0
    found = record(root)
    assert {key: found[key] for key in ("status", "progress", "phase", "framesDone", "framesTotal")} == {
        "status": "rendering", "progress": 40, "phase": "beauty", "framesDone": 100, "framesTotal": 250,
    }  # fmt: skip
    assert run("log", "title", text="first\nsecond").exit_code == 0
    assert (root / "title" / "render.log").read_text() == "first\nsecond\n"
    (root / "title" / "output" / "title.mp4").write_bytes(b"film")
    (root / "title" / "output" / "title.jpg").write_bytes(b"image")
    assert run("output", "title", "preview", "output/title.jpg", "--role", "preview").exit_code == 0
    assert run("complete", "title").exit_code == 0
    assert record(root)["status"] == "completed"
    assert record(root)["outputs"][0]["role"] == "preview"


def test_job_does_not_become_stalled_while_it_is_logged(root: Path) -> None:
    created()
    file = root / "title" / "status.json"
    before = file.read_bytes()
    os.utime(file, (0, 0))
    code = "from jobsvc.cli.render import hooks; hooks.HEARTBEAT_S = 0.1; hooks.farm(['log', 'title'])"
    with Popen([sys.executable, "-c", code], stdin=PIPE):
        wait_until(lambda: file.stat().st_mtime > 0)
    assert file.read_bytes() == before


def test_log_of_storage_that_fails_does_not_end_the_pipe(root: Path) -> None:
    created()
    code = "from jobsvc.cli import main; main(['farm', 'log', 'title'])"
    with Popen([sys.executable, "-c", code], stdin=PIPE, stderr=PIPE, bufsize=0) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(b"first\n")
        wait_until((root / "title/render.log").exists)
        (root / "title").rename(root / ".away")
        process.stdin.write(b"second\n")
        assert b"can't be written" in process.stderr.readline()
        (root / ".away").rename(root / "title")
        process.stdin.write(b"third")
        process.stdin.close()
        assert process.wait() == 0
    assert (root / "title/render.log").read_text() == "first\nsecond\nthird\n"


def test_line_without_end_is_logged_in_parts(root: Path) -> None:
    created()
    assert run("log", "title", text="x" * 1_000_000).exit_code == 0
    lines = (root / "title" / "render.log").read_text().splitlines()
    assert ({*"".join(lines)}, sum(map(len, lines))) == ({"x"}, 1_000_000)
    assert len(lines) > 10


def test_error_may_begin_with_a_hyphen(root: Path) -> None:
    created()
    assert run("fail", "title", "-11: segmentation fault").exit_code == 0
    assert record(root)["error"] == "-11: segmentation fault"


def test_job_without_its_output_ends_as_failed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farm, "OUTPUT_TIMEOUT_S", 0.1)
    created("--output", "output/title.mp4")
    result = run("complete", "title")
    assert (result.exit_code, result.output) == (
        1,
        f"Error: {root}/title is failed: output/title.mp4 is missing\n",
    )
    assert (record(root)["status"], record(root)["error"]) == ("failed", "output/title.mp4 is missing")


def test_job_fails_with_a_reason(root: Path) -> None:
    created()
    assert run("fail", "title", "no licence").exit_code == 0
    assert (record(root)["status"], record(root)["error"]) == ("failed", "no licence")
    created()
    assert (record(root)["status"], record(root)["attempt"]) == ("queued", 2)


def test_job_is_canceled(root: Path) -> None:
    created()
    assert run("cancel", "title").exit_code == 0
    assert record(root)["status"] == "canceled"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["progress", "other", "3"], "create the job first"),
        (["create", "--owner", "acme", "--id", "../x"], "is no job id"),
        (["create", "--owner", "other", "--id", "title"], "belongs to 'acme'"),
    ],
)
def test_fault_is_one_line(words: list[str], message: str) -> None:
    created()
    result = run(*words)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert message in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["progress", "title", "--frames", "few"], "is not DONE or DONE/TOTAL"),
        (["progress", "title", "--frames", "300/250"], "more frames are done than there are"),
        (["progress", "title", "140"], "140.0 is not in the range 0<=x<=100"),
        (["create", "--owner", "acme", "--metadata", "{"], "not JSON"),
        (["create", "--owner", "acme", "--metadata", "[]"], "not a JSON object"),
    ],
)
def test_wrong_use_names_the_option(words: list[str], message: str) -> None:
    created()
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.output


def test_schema_is_printed() -> None:
    assert json.loads(run("schema").output)["title"] == "status.json"
