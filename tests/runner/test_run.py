"""`jobsvc run` writes the job of a real command: log, progress, outputs and the final state."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, Final

import pytest

from tests.eventually import until

RENDERER: Final = """
import pathlib, sys, time
path, frames = pathlib.Path(sys.argv[1]), int(sys.argv[2])
for frame in range(1, frames + 1):
    print(f"Rendering frame {frame} of {frames}", flush=True)
    if path.parent.is_dir():
        pathlib.Path(str(path).replace("####", f"{frame:04d}")).write_bytes(b"frame")
    time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0)
"""


def command(jobs_root: Path, *words: str) -> list[str]:
    options = ["--jobs-root", str(jobs_root), "--owner", "acme", "--id", "title"]
    return [sys.executable, "-m", "jobsvc", "run", *options, *words]


async def start(jobs_root: Path, *words: str) -> Process:
    return await asyncio.create_subprocess_exec(*command(jobs_root, *words), stdout=PIPE, stderr=PIPE)


async def run(jobs_root: Path, *words: str) -> tuple[int, str, str]:
    process = await start(jobs_root, *words)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def record(jobs_root: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((jobs_root / "title" / "status.json").read_bytes()))
    except FileNotFoundError:
        return {}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def render(*words: str) -> list[str]:
    return ["--", sys.executable, "-c", RENDERER, *words]


async def test_sequence_is_rendered(jobs_root: Path) -> None:
    code, out, err = await run(
        jobs_root, "--frames", "1-5", "--output", "o/a.####.exr", *render("{output}", "5")
    )
    assert (code, err) == (0, "jobsvc: job title, attempt 1\n")
    assert out.splitlines()[-1] == "Rendering frame 5 of 5"
    found = record(jobs_root)
    assert (found["status"], found["framesTotal"]) == ("completed", 5)
    assert found["outputs"] == [{"name": "main", "path": "o/a.####.exr", "role": "main", "frames": "1-5"}]
    assert len(list((jobs_root / "title" / "o").iterdir())) == 5
    assert (jobs_root / "title" / "render.log").read_text().splitlines()[1:] == out.splitlines()


async def test_frames_are_those_of_the_arguments_of_blender(jobs_root: Path, tmp_path: Path) -> None:
    blender = tmp_path / "blender"
    blender.write_text(
        '#!/bin/sh\nfor n in 3 4 5; do echo frame > "$2/a.000$n.png"; echo Fra:$n Mem:1M; done\n'
    )
    blender.chmod(0o755)
    words = ["-o", "{job}/o", "-s", "3", "-e", "5", "-a"]
    assert (await run(jobs_root, "--output", "o/a.####.png", "--", str(blender), *words))[0] == 0
    found = record(jobs_root)
    assert (found["framesTotal"], found["outputs"][0]["frames"]) == (3, "3-5")


async def test_command_finds_its_job_in_its_environment(jobs_root: Path) -> None:
    script = 'echo film > "$JOBSVC_OUTPUT"; echo note > "$JOBSVC_JOB_DIR/note.txt"'
    assert (await run(jobs_root, "--output", "o/a.mp4", "--", "sh", "-c", script))[0] == 0
    assert (jobs_root / "title" / "o" / "a.mp4").read_text() == "film\n"
    assert (jobs_root / "title" / "note.txt").read_text() == "note\n"


async def test_reported_files_become_outputs(jobs_root: Path) -> None:
    file = "$JOBSVC_JOB_DIR/a.000$n.png"
    script = f"for n in 1 2; do echo x > {file}; echo \"Saved: '{file}'\"; done"
    assert (await run(jobs_root, "--format", "blender", "--", "sh", "-c", script))[0] == 0
    assert record(jobs_root)["outputs"] == [{"name": "a", "path": "a.####.png", "role": "main"}]


async def test_progress_rises_while_it_renders(jobs_root: Path) -> None:
    process = await start(
        jobs_root, "--frames", "1-8", "--output", "a.####.exr", *render("{output}", "8", "0.6")
    )
    seen: list[float] = []
    while process.returncode is None:
        seen.append(record(jobs_root).get("progress", 0))
        await asyncio.sleep(0.05)
    assert seen == sorted(seen)
    assert len({value for value in seen if 0 < value < 100}) >= 2


async def test_job_that_another_program_cancels_ends_its_command(jobs_root: Path) -> None:
    process = await start(jobs_root, "--", "sh", "-c", "echo $$; while sleep 0.1; do echo 5 %; done")
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    await until(lambda: record(jobs_root).get("status") == "rendering")
    cancel = [sys.executable, "-m", "jobsvc", "farm", "cancel", "--jobs-root", str(jobs_root), "title"]
    assert await (await asyncio.create_subprocess_exec(*cancel)).wait() == 0
    _, err = await process.communicate()
    assert process.returncode == 1
    assert "another program has ended title: it is canceled" in err.decode()
    assert record(jobs_root)["status"] == "canceled"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_exit_code_and_reason_of_a_failure_are_kept(jobs_root: Path) -> None:
    script = "echo 'Error: no licence' >&2; exit 7"
    code, _, err = await run(jobs_root, "--", "sh", "-c", script)
    assert code == 7
    assert "Error: no licence\n" in err
    assert record(jobs_root)["status"] == "failed"
    assert record(jobs_root)["error"] == "sh exited with code 7: Error: no licence"


async def test_command_that_does_not_exist_fails_the_job(jobs_root: Path) -> None:
    code, _, err = await run(jobs_root, "--", "no-such-renderer")
    assert code == 127
    assert err.splitlines()[-1] == "Error: no-such-renderer: No such file or directory"
    assert record(jobs_root)["error"] == "no-such-renderer: No such file or directory"


async def test_command_that_was_killed_fails_the_job(jobs_root: Path) -> None:
    assert (await run(jobs_root, "--", "sh", "-c", "kill -9 $$"))[0] == 137
    assert record(jobs_root)["error"] == "sh was ended by SIGKILL"


async def test_success_without_the_output_is_a_failure(jobs_root: Path) -> None:
    code, _, err = await run(
        jobs_root, "--output", "a.mp4", "--", "sh", "-c", 'echo x > "$JOBSVC_OUTPUT.part"'
    )
    assert (code, record(jobs_root)["status"]) == (1, "failed")
    failed = f"Error: {jobs_root}/title is failed"
    assert err.splitlines()[-1] == f"{failed}: a.mp4 is missing; the renderer wrote a.mp4.part"
    assert record(jobs_root)["error"] == "a.mp4 is missing; the renderer wrote a.mp4.part"


async def test_failure_says_that_nothing_was_written_to_the_output(jobs_root: Path) -> None:
    assert (await run(jobs_root, "--output", "a.mp4", "--", "true"))[0] == 1
    assert record(jobs_root)["error"] == "a.mp4 is missing; the renderer wrote nothing to {output}"


async def test_owner_is_taken_from_the_environment(jobs_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSVC_OWNER", "anna")
    options = ["--jobs-root", str(jobs_root), "--id", "title", "--", "true"]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "jobsvc", "run", *options)
    assert await process.wait() == 0
    assert record(jobs_root)["owner"] == "anna"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_signal_cancels_the_job_and_ends_all_its_processes(
    jobs_root: Path, number: signal.Signals
) -> None:
    script = "sleep 1000 & echo $!; echo $$; wait"
    process = await start(jobs_root, "--", "sh", "-c", script)
    assert process.stdout is not None
    pids = [int(await process.stdout.readline()) for _ in range(2)]
    process.send_signal(number)
    assert await process.wait() == 128 + number
    assert record(jobs_root)["status"] == "canceled"
    await until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


async def test_second_signal_kills_at_once(jobs_root: Path) -> None:
    process = await start(
        jobs_root,
        "--",
        sys.executable,
        "-uc",
        "import signal,time;signal.signal(15,lambda *a:print('no'));print(1);time.sleep(99);time.sleep(99)",
    )
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert await process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 130


async def test_progress_lines_are_shown_at_once_but_rarely_logged(jobs_root: Path) -> None:
    script = "for n in 1 2 3 4 5 6 7 8; do printf '%d %%\\r' $n; done; printf '\\ndone\\n'"
    code, out, _ = await run(jobs_root, "--", "sh", "-c", script)
    assert code == 0
    assert out.startswith("1 %\r2 %\r")
    assert (jobs_root / "title" / "render.log").read_text().splitlines()[1:] == ["1 %", "8 %", "done"]


async def test_command_has_a_terminal_if_there_is_one(jobs_root: Path) -> None:
    source, child = pty.openpty()
    words = command(
        jobs_root, "--", sys.executable, "-c", "import sys; print(sys.stdout.isatty(), flush=True)"
    )
    process = await asyncio.create_subprocess_exec(*words, stdin=child, stdout=child, stderr=PIPE)
    os.close(child)
    assert await process.wait() == 0
    assert await asyncio.to_thread(os.read, source, 100) == b"True\r\n"
    os.close(source)


async def test_standard_input_reaches_the_command(jobs_root: Path) -> None:
    words = command(jobs_root, "--output", "a.mp4", "--", "sh", "-c", 'cat > "$JOBSVC_OUTPUT"')
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    await process.communicate(b"film")
    assert process.returncode == 0
    assert (jobs_root / "title" / "a.mp4").read_bytes() == b"film"


async def test_frames_that_are_on_disk_are_kept_if_asked_for(jobs_root: Path) -> None:
    words = ["--frames", "1-3", "--output", "a.####.exr"]
    failing = ["--", sys.executable, "-c", f"{RENDERER}sys.exit(3)", "{output}", "3"]
    assert (await run(jobs_root, *words, *failing))[0] == 3
    listing = ["--", "sh", "-c", 'ls "$(dirname "$JOBSVC_OUTPUT")"']
    code, out, _ = await run(jobs_root, *words, "--keep-outputs", *listing)
    assert (code, out) == (1, "a.0001.exr\na.0002.exr\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--", "ffmpeg", "{output}"], "name the path of the output by --output"),
        (["--frames", "few", "--", "true"], "is not a list of frames"),
        (["--regex", "missing.toml", "--", "true"], "does not exist"),
        (["--ouput", "a.mp4", "--", "true"], "No such option '--ouput'"),
        ([], "Missing argument"),
    ],
)
async def test_wrong_use_creates_no_job(jobs_root: Path, words: list[str], message: str) -> None:
    code, _, err = await run(jobs_root, *words)
    assert (code, names(jobs_root)) == (2, [])
    assert message in err
