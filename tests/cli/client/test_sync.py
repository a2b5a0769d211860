"""jobsvc sync against the real service."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
from pathlib import Path

import pytest

from jobsvc.cli.client.progress.lines import LineDisplay
from jobsvc.cli.client.sync import _Warnings
from tests.clients.client_command import ClientCommand
from tests.conftest import MakeJob, Serve


@pytest.fixture
async def command(
    serve: Serve, make_job: MakeJob, tmp_path: Path, treat_new_files_as_stable: None
) -> ClientCommand:
    for number in range(3):
        make_job(f"job-{number}", output=b"film %d" % number)
    make_job("failed", status="failed")
    here = tmp_path / "here"
    here.mkdir()
    return ClientCommand.of(await serve(), here)


async def test_files_of_completed_jobs_are_copied_and_listed(command: ClientCommand) -> None:
    ended = await command.run("sync", "films")
    assert ended.exit_code == 0, ended
    paths = sorted(ended.stdout.decode().splitlines())
    assert paths == [f"films/job-{number}/film.mp4" for number in range(3)]
    assert [(command.folder / path).read_bytes() for path in paths] == [b"film 0", b"film 1", b"film 2"]
    assert ended.stderr.startswith("3 files, 18 B in ")
    assert "each verified by its sha256" in ended.stderr


async def test_next_run_copies_only_new_jobs(command: ClientCommand, make_job: MakeJob) -> None:
    await command.run("sync", "films")
    ended = await command.run("sync", "films")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, b"", "no new files\n")
    make_job("new", output=b"new")
    async with asyncio.timeout(20):
        while not (ended := await command.run("sync", "films")).stdout:
            assert ended.exit_code == 0
    assert ended.stdout == b"films/new/film.mp4\n"


async def test_template_without_a_path_is_wrong_use(command: ClientCommand) -> None:
    ended = await command.run("sync", "films", "--name", "{id}")
    assert ended.exit_code == 2
    assert "it needs {path}, and can have {id} and {output}." in ended.stderr


async def test_template_names_the_files(command: ClientCommand) -> None:
    ended = await command.run("sync", "films", "--name", "{id}-{path}", "--format", "jsonl", "-q")
    files = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {file["jobId"]: file["path"] for file in files} == {
        f"job-{number}": f"films/job-{number}-film.mp4" for number in range(3)
    }
    assert ended.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_watch_goes_on_until_it_is_interrupted(
    command: ClientCommand, make_job: MakeJob, number: signal.Signals
) -> None:
    async with command.running("sync", "films", "--watch") as process, asyncio.timeout(30):
        assert process.stdout is not None
        for _ in range(3):
            assert (await process.stdout.readline()).startswith(b"films/job-")
        make_job("new", output=b"new")
        assert await process.stdout.readline() == b"films/new/film.mp4\n"
        process.send_signal(number)
        output, said = await process.communicate()
    assert (process.returncode, output) == (130, b""), said
    assert said.decode().splitlines()[-1] == (
        "jobsvc: Interrupted. The same command continues where this one stopped."
    )


async def test_watch_says_that_it_waits_after_files_were_downloaded(command: ClientCommand) -> None:
    running = command.running("sync", "films", "--watch", variables={"JOBSVC_PROGRESS": "always"})
    async with running as process, asyncio.timeout(20):
        assert process.stderr is not None
        await process.stderr.readuntil(b"100 %")
        await process.stderr.readuntil(b"Waiting for jobs")


async def test_unknown_token_is_not_authorized(command: ClientCommand) -> None:
    ended = await command.run("sync", "films", JOBSVC_TOKEN=f"jsvc_{'0' * 43}")
    assert ended.exit_code == 4


async def test_missing_service_is_an_error(command: ClientCommand) -> None:
    ended = await command.through(1).run("sync", "films", "--retries", "0")
    assert ended.exit_code == 1


async def test_listed_files_and_bar_share_a_terminal(command: ClientCommand) -> None:
    ended = await command.run_on_terminal("sync", "films", results_too=True)
    assert ended.exit_code == 0
    assert len(re.findall(r"(?:(?<=\x1b\[2K)|(?<=\n))films/job-\d/film\.mp4\r\n", ended.stderr)) == 3, ended


async def test_other_jobs_are_copied_if_one_cannot_be(command: ClientCommand) -> None:
    (command.folder / "films").mkdir()
    (command.folder / "films/job-1").write_bytes(b"a file")
    ended = await command.run("sync", "films")
    assert ended.exit_code == 1, ended
    paths = sorted(ended.stdout.decode().splitlines())
    assert paths == ["films/job-0/film.mp4", "films/job-2/film.mp4"]
    summary, error = ended.stderr.splitlines()
    assert summary.startswith("2 files, ")
    assert error.startswith("jobsvc: 1 job could not be downloaded")
    assert "job-1" in error


async def test_second_sync_of_a_directory_says_so_and_ends(command: ClientCommand) -> None:
    async with command.running("sync", "films", "--watch") as process, asyncio.timeout(30):
        assert process.stdout is not None
        await process.stdout.readline()
        ended = await command.run("sync", "films")
    assert (ended.exit_code, ended.stdout) == (1, b"")
    assert "films" in ended.stderr


def test_warnings_of_the_client_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with _Warnings(LineDisplay()):
        logging.getLogger("jobsvc.client").warning("%s is tried again later", "job-1")
    assert capsys.readouterr().err == "jobsvc: job-1 is tried again later\n"
