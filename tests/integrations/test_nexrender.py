"""The action for nexrender, in jobs of the real @nexrender/core with a stand-in for aerender."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.eventually import wait_until
from tests.programs import npm
from tests.programs.external_programs import needs

pytestmark = needs("node", "npm")

ACTION: Final = Path(__file__).parents[2] / "docs" / "integrations" / "nexrender" / "jobsvc.js"
AERENDER: Final = """#!/bin/sh
while [ "$1" != -output ]; do shift; done
echo "PROGRESS:  Start: 0:00:00:00"
echo "PROGRESS:  Duration: 0:00:00:04"
for frame in 1 2 3 4; do echo "PROGRESS:  0:00:00:0$frame ($frame): 0 Seconds"; sleep 0.1; done
eval "$AT_END"
output=$(echo "$2" | sed 's/\\[#*\\]/00001/')
echo film > "$output"
"""
FAILURE: Final = 'echo "aerender Error: After Effects error: a layer is missing."; exit 1'
OUTAGE: Final = """
mv "$JOBS_ROOT" "$JOBS_ROOT.away"
(sleep 3; mv "$JOBS_ROOT.away" "$JOBS_ROOT") >/dev/null 2>&1 &
"""
COMMAND: Final = str(Path(sys.executable).parent / "jobsvc")
# Writes no progress until aerender has rendered; after 20 seconds it no longer waits.
SLOW_COMMAND: Final = """#!/bin/sh
if [ "$2" = progress ]; then
  for try in $(seq 200); do [ -e "{rendered}" ] && break; sleep 0.1; done
  [ -e "{rendered}" ] || touch "{late}"
fi
exec "{jobsvc}" "$@"
"""
# On Linux, nexrender does not start: there is no After Effects. After an error, nexrender-cli exits at once.
WORKER: Final = """
require("os").platform = () => "darwin";
const { init, render } = require("@nexrender/core");
const [binary, workpath, job] = process.argv.slice(2);
const settings = init({ binary, workpath, noAnalytics: true });
render(JSON.parse(job), settings).catch(({ message }) => { console.log(message); process.exit(3); });
"""
Render = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm.install(tmp_path_factory.mktemp("nexrender"), "@nexrender/core@1.63.3")


@pytest.fixture
def render(modules: Path, tmp_path: Path, jobs_root: Path) -> Render:
    """Return a function that renders a job with nexrender, and returns exit code and output."""
    aerender = tmp_path / "aerender"
    aerender.write_text(AERENDER)
    aerender.chmod(0o755)
    startup = tmp_path / "Scripts" / "Startup"
    startup.mkdir(parents=True)
    (startup / "commandLineRenderer.jsx").touch()
    (tmp_path / "title.aep").touch()
    (modules.parent / "worker.js").write_text(WORKER)

    def start(
        uid: str, *, extension: str = "mov", at_end: str = "", src: str = "", **values: str
    ) -> tuple[int, str]:
        first = {
            "module": str(ACTION),
            "owner": "acme",
            "jobsRoot": str(jobs_root),
            "command": COMMAND,
            **values,
        }
        source = {"src": src or f"file://{tmp_path}/title.aep", "name": "title.aep", "composition": "main"}
        actions = {"predownload": [first], "postrender": [{"module": str(ACTION), **values}]}
        job = json.dumps({"uid": uid, "template": {**source, "outputExt": extension}, "actions": actions})
        result = subprocess.run(
            ["node", modules.parent / "worker.js", aerender, tmp_path / "work", job],
            env={**os.environ, "AT_END": at_end, "HOME": str(tmp_path), "JOBS_ROOT": str(jobs_root)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    return start


def record(jobs_root: Path, job_id: str) -> dict[str, Any]:
    return dict(json.loads((jobs_root / job_id / "status.json").read_bytes()))


def failed_record(jobs_root: Path, job_id: str) -> dict[str, Any]:
    """Wait for the record, which is written while nexrender exits."""
    wait_until(lambda: record(jobs_root, job_id)["status"] == "failed", 30)
    return record(jobs_root, job_id)


def test_film_is_an_output_of_the_completed_job(render: Render, jobs_root: Path) -> None:
    code, output = render("-film")
    assert code == 0, output
    found = record(jobs_root, "x-film")
    assert (found["status"], found["owner"], found["metadata"]["composition"]) == (
        "completed",
        "acme",
        "main",
    )
    assert found["outputs"] == [{"name": "main", "path": "output/result.mov", "role": "main"}]
    assert (jobs_root / "x-film" / "output" / "result.mov").read_bytes() == b"film\n"


def test_frames_are_an_output_of_the_completed_job(render: Render, jobs_root: Path) -> None:
    code, output = render("frames", extension="png")
    assert code == 0, output
    assert record(jobs_root, "frames")["outputs"][0]["path"] == "output/result_#####.png"
    assert [path.name for path in (jobs_root / "frames" / "output").iterdir()] == ["result_00001.png"]


def test_error_of_aerender_is_that_of_the_job_and_the_next_attempt_ends_well(
    render: Render, jobs_root: Path
) -> None:
    assert render("title", at_end=FAILURE)[0] == 3
    assert failed_record(jobs_root, "title")["error"] == "After Effects error: a layer is missing."
    log = jobs_root / "title" / "render.log"
    wait_until(
        lambda: log.exists() and "aerender Error: " in log.read_text().rstrip().rpartition("\n")[2], 30
    )
    assert log.read_text().startswith("PROGRESS:  Start: 0:00:00:00\n")
    assert render("title")[0] == 0
    assert (record(jobs_root, "title")["status"], record(jobs_root, "title")["attempt"]) == ("completed", 2)


def test_failed_download_fails_the_job_whose_record_has_no_passwords(render: Render, jobs_root: Path) -> None:
    assert render("title", src="http://user:password@127.0.0.1:1/a/title.aep?signature=1")[0] == 3
    found = failed_record(jobs_root, "title")
    assert found["error"] == "nexrender failed in download"
    assert found["projectPath"] == "http://127.0.0.1:1/a/title.aep"


def test_film_is_copied_after_an_outage(render: Render, jobs_root: Path) -> None:
    code, output = render("title", at_end=OUTAGE)
    assert code == 0, output
    assert output.count("trying again for ten minutes") == 1
    assert record(jobs_root, "title")["status"] == "completed"
    assert (jobs_root / "title" / "output" / "result.mov").read_bytes() == b"film\n"


def test_output_that_is_not_there_fails_the_job_but_not_the_render(render: Render, jobs_root: Path) -> None:
    code, output = render("title", input="other.mp4")
    assert code == 0
    assert record(jobs_root, "title")["error"].startswith("the output was not copied: ")
    assert "work/title/other.mp4 is missing" in output


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"jobsRoot": "/nowhere"}, "/nowhere"),
        ({"command": "/nowhere/jobsvc"}, "spawn /nowhere/jobsvc ENOENT"),
        ({"owner": ""}, "the action needs `owner`"),
    ],
)
def test_job_that_cannot_be_written_is_rendered_and_the_reason_logged(
    render: Render, values: dict[str, str], message: str
) -> None:
    code, output = render("title", **values)
    assert code == 0, output
    assert message in output


def test_render_does_not_wait_for_progress_that_cannot_be_written(
    render: Render, jobs_root: Path, tmp_path: Path
) -> None:
    rendered, late = tmp_path / "rendered", tmp_path / "late"
    command = tmp_path / "jobsvc"
    command.write_text(SLOW_COMMAND.format(rendered=rendered, late=late, jobsvc=COMMAND))
    command.chmod(0o755)
    code, output = render("title", command=str(command), at_end=f"touch {rendered}")
    assert code == 0, output
    assert not late.exists()
    assert record(jobs_root, "title")["status"] == "completed"
