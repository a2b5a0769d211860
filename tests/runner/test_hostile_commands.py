"""Commands that close their output, leave processes behind, are stopped, or write what they should not."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from jobsvc.farm import sync
from jobsvc.runner import command as runner_command
from jobsvc.runner.command import Command
from tests.eventually import until
from tests.runner.test_run import record, run, start

IGNORES_TERM: Final = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


def python(code: str) -> list[str]:
    return ["--", sys.executable, "-c", code]


def test_command_without_output_is_killed_after_the_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_command, "GRACE_S", 0.3)
    code = f"{IGNORES_TERM}import os; print('ready', flush=True); os.close(1); os.close(2); time.sleep(60)"
    command = Command([sys.executable, "-c", code], {})
    assert command.run(lambda _line: command.cancel(signal.SIGTERM), lambda: None) == -signal.SIGKILL


def test_stopped_command_is_canceled_at_once() -> None:
    command = Command(["sh", "-c", "echo ready; kill -STOP $$; sleep 60"], {})
    seen: list[str] = []

    def cancel_when_stopped() -> None:
        if seen and command.canceled_by is None:
            command.cancel(signal.SIGTERM)

    assert command.run(lambda line: seen.append(line.text), cancel_when_stopped) == -signal.SIGTERM


async def test_printing_process_in_the_background_is_not_waited_for(jobs_root: Path) -> None:
    chatty = "(for i in $(seq 600); do echo x; sleep 0.05; done) & echo $!"
    code, out, _ = await asyncio.wait_for(run(jobs_root, "--", "sh", "-c", chatty), 20)
    assert (code, record(jobs_root)["status"]) == (0, "completed")
    assert out.splitlines()[0].isdecimal()


async def test_last_lines_are_read_after_the_command_has_exited(jobs_root: Path) -> None:
    await run(jobs_root, *python("print('x' * 60_000); print('the last line')"))
    assert "the last line" in (jobs_root / "title/render.log").read_text().splitlines()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
async def test_ignored_signal_does_not_cancel(jobs_root: Path, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # as nohup, and as a shell does for a command with &
    try:
        process = await start(jobs_root, *python("import time; time.sleep(60)"))
    finally:
        signal.signal(number, before)
    await until(lambda: record(jobs_root).get("status") == "rendering")
    process.send_signal(number)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 128 + signal.SIGTERM


async def test_real_time_signal_is_named(jobs_root: Path) -> None:
    code, _, _ = await run(jobs_root, *python("import os; os.kill(os.getpid(), 36)"))
    assert (code, record(jobs_root)["error"]) == (128 + 36, "python was ended by signal 36")


async def test_interrupt_while_outputs_are_waited_for_cancels(jobs_root: Path) -> None:
    process = await start(jobs_root, "--output", "title.mp4", *python("print('rendered')"))
    await until(lambda: "rendered" in read_log(jobs_root))
    await until(lambda: not list(jobs_root.glob("title/.render-*")))
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 128 + signal.SIGINT
    assert record(jobs_root)["status"] == "canceled"


def read_log(jobs_root: Path) -> str:
    try:
        return (jobs_root / "title/render.log").read_text()
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("name", ["status.json", "render.log"])
async def test_renderer_does_not_replace_the_files_of_the_job(jobs_root: Path, name: str) -> None:
    renderer = f"import sys, pathlib; pathlib.Path(sys.argv[1]).with_name('{name}').write_text('x')"
    code, _, _ = await run(jobs_root, "--output", "title.mp4", *python(renderer), "{output}")
    error = f"the renderer wrote {name} beside the output: use --output output/NAME"
    assert (code, record(jobs_root)["error"]) == (1, error)


def test_fifo_in_place_of_an_output_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "title.mp4")
    sync(tmp_path / "title.mp4")
