"""Child processes import this package and installed ones, and nothing from the current directory."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from jobsvc.index.processes import spawn

MODULES = ("watchfiles", "orjson", "json", "jobsvc")


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create packages in the current directory that leave a mark when they are imported."""
    mark = tmp_path / "mark"
    for name in MODULES:
        package = tmp_path / "current" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()")
    monkeypatch.chdir(tmp_path / "current")
    return mark


async def first_line(process: Process) -> bytes:
    assert process.stdout is not None
    try:
        return await process.stdout.readline()
    finally:
        await spawn.kill(process)


@pytest.mark.parametrize("inherited", [None, "", ".", os.pathsep])
async def test_child_imports_nothing_from_the_current_directory(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, inherited: str | None
) -> None:
    if inherited is not None:
        monkeypatch.setenv("PYTHONPATH", inherited)
    process = await spawn.spawn("jobsvc.index.watch.watcher_process", str(tmp_path), "0.2", "64")
    folder = await asyncio.to_thread(os.readlink, f"/proc/{process.pid}/cwd")
    assert await first_line(process) == b"ready\n"
    assert folder == "/"
    assert not await asyncio.to_thread(mark.exists)


@pytest.mark.both_loops
async def test_cancelled_kill_waits_for_the_exit(tmp_path: Path) -> None:
    process = await spawn.spawn("jobsvc.index.watch.watcher_process", str(tmp_path), "0.2", "64")
    killing = asyncio.create_task(spawn.kill(process))
    await asyncio.sleep(0)
    killing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await killing
    assert process.returncode == -signal.SIGKILL
