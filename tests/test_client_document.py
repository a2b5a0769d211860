"""docs/client.md and the client's part of README match the code; commands and programs work as pasted."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import jobsvc
from jobsvc import client as module
from jobsvc.cli.client.exit_codes import ExitCode
from jobsvc.cli.demo import copy_samples, samples
from jobsvc.client import Client
from tests.clients.client_command import ClientCommand
from tests.conftest import MakeToken, Serve
from tests.programs.external_programs import DEADLINE_S, CompletedProgram, needs

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/client.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
FILM = (samples() / "opening-title-0042/output/opening-title.mp4").read_bytes()


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if re.match(r"\| (`|\d)", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def block(page: str, language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return next(text for text in blocks if containing in text)


def test_exit_codes_equal_those_of_the_commands() -> None:
    assert [int(row[0]) for row in rows("Exit codes")] == sorted(code.value for code in ExitCode)


def test_methods_and_their_defaults_equal_those_of_the_client() -> None:
    public = {name for name, value in vars(Client).items() if inspect.isfunction(value) and name[0] != "_"}
    expected = [f"`{name}({parameters(name)})`" for name in sorted(public - {"close"})]
    assert sorted(row[0] for row in rows("Python")) == expected


def parameters(name: str) -> str:
    """Return the parameters of a method as the page shows them."""
    short = {"job_id": "id", "job_ids": "*ids"}
    return ", ".join(
        short.get(each.name, each.name)
        + ("" if each.default is each.empty else f"={each.default!r}".replace("'", '"'))
        for each in list(inspect.signature(getattr(Client, name)).parameters.values())[1:]
    )


def test_named_classes_exist() -> None:
    section = PAGE.partition("\nEvery exception is")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([A-Z]\w+)`", section))
    assert len(named) > 10
    assert named <= set(module.__all__)


@pytest.fixture
async def command(jobs_root: Path, make_token: MakeToken, serve: Serve, tmp_path: Path) -> ClientCommand:
    """Serve the sample jobs, with a token of their owner."""
    shutil.rmtree(jobs_root)
    copy_samples(jobs_root)
    token = make_token("demo")
    here = tmp_path / "here"
    here.mkdir()
    return ClientCommand((await serve()).port, token, here)


@asynccontextmanager
async def started(
    command: ClientCommand, *words: str, **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program during a block, with `jobsvc` on its PATH."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=command.folder,
        env=command.environment(**variables),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def pasted(command: ClientCommand, text: str, *, typed: str = "", **variables: str) -> CompletedProgram:
    """Paste lines into a shell; `typed` is its standard input."""
    async with started(command, "bash", "-c", text, **variables) as process, asyncio.timeout(DEADLINE_S):
        output, said = await process.communicate(typed.encode())
    assert process.returncode is not None
    return CompletedProgram(process.returncode, output, said.decode())


async def test_five_commands_of_readme_lead_to_a_verified_film(command: ClientCommand) -> None:
    recipe = block(README, "sh", "jobsvc login")
    install, *lines = recipe.splitlines()
    assert install.endswith("pip install --quiet .")
    assert len(lines) == 4
    url = f"http://127.0.0.1:{command.port}"
    text = "unset JOBSVC_URL JOBSVC_TOKEN\n" + "\n".join(lines).replace("http://127.0.0.1:8080", url)
    ended = await pasted(command, text, typed=f"{command.token}\n")
    assert ended.exit_code == 0, ended
    (shown,) = re.findall(r"last two print:\n\n```\n(.*?)```", README, re.DOTALL)
    assert ended.stdout.decode().endswith(shown)
    assert "verified sha256" in ended.stderr
    assert (command.folder / "opening-title.mp4").read_bytes() == FILM


@needs("tar")
@pytest.mark.parametrize(
    "line",
    [line for line in block(PAGE, "sh", "jobsvc jobs --status").splitlines() if line],
    ids=lambda line: line[:40],
)
async def test_command_works_as_pasted(command: ClientCommand, line: str) -> None:
    ended = await pasted(command, line)
    assert ended.exit_code == 0, ended


async def test_login_whoami_and_logout_work_as_pasted(command: ClientCommand) -> None:
    recipe = block(PAGE, "sh", "jobsvc login").replace(
        "https://render.example.com", f"http://127.0.0.1:{command.port}"
    )
    ended = await pasted(
        command, f"set -e\nunset JOBSVC_URL JOBSVC_TOKEN\n{recipe}", typed=f"{command.token}\n"
    )
    assert ended.exit_code == 0, ended
    assert "demo" in ended.stdout.decode()


async def test_ci_step_fetches_the_files(command: ClientCommand) -> None:
    ended = await pasted(command, block(PAGE, "sh", "--wait --timeout 2h"), JOB="opening-title-0042")
    assert ended.exit_code == 0, ended
    assert (command.folder / "artifacts/opening-title.mp4").read_bytes() == FILM


async def test_ci_step_shows_the_log_of_a_failed_job(command: ClientCommand) -> None:
    ended = await pasted(command, block(PAGE, "sh", "--wait --timeout 2h"), JOB="turntable-0013")
    assert ended.exit_code == 3, ended
    assert "no attempts left, job failed" in ended.stdout.decode()


@pytest.mark.parametrize("source", ["shell", "systemd", "crontab"])
async def test_nightly_sync_copies_all_files(command: ClientCommand, source: str) -> None:
    line = {
        "shell": block(PAGE, "sh", "sync /srv/films"),
        "systemd": re.search(r"^ExecStart=/opt/jobsvc/bin/(.*)$", PAGE, re.MULTILINE)[1],  # type: ignore[index]
        "crontab": re.search(r"`0 3 \* \* \* (.*?)`", PAGE)[1],  # type: ignore[index]
    }[source]
    ended = await pasted(command, line.replace("/srv/films", "films"))
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "films/opening-title-0042/opening-title.mp4" in ended.stdout.decode().splitlines()
    assert (command.folder / "films/opening-title-0042/opening-title.mp4").read_bytes() == FILM


async def test_script_of_another_program_needs_the_standard_library_alone(command: ClientCommand) -> None:
    library = command.folder / "python"
    library.mkdir()
    (library / "jobsvc").symlink_to(Path(jobsvc.__file__).parent)
    recipe = block(PAGE, "python", "in_main_thread").replace("/pipeline/python", str(library))
    program = f"{recipe}\nfetch('opening-title-0042', 'films', print, lambda call: call()).join()"
    async with started(command, sys.executable, "-I", "-S", "-c", program) as process:
        async with asyncio.timeout(DEADLINE_S):
            output, said = await process.communicate()
    assert (process.returncode, said) == (0, b"")
    assert output == b"['films/opening-title-0042/opening-title.mp4']\n"


async def test_asyncio_service_downloads_completed_jobs(command: ClientCommand) -> None:
    program = block(PAGE, "python", "AsyncClient")
    count = len(re.findall(r"completed", (await command.run("jobs", "-o", "jsonl")).stdout.decode()))
    assert count > 0
    async with started(command, sys.executable, "-c", program) as process, asyncio.timeout(DEADLINE_S):
        assert process.stdout is not None
        while (await process.stdout.readline()) != b"films/opening-title-0042/opening-title.mp4\n":
            assert process.returncode is None
    assert (command.folder / "films/opening-title-0042/opening-title.mp4").read_bytes() == FILM


async def test_python_example_works(command: ClientCommand) -> None:
    program = block(PAGE, "python", "client.jobs(")
    async with started(command, sys.executable, "-c", program) as process, asyncio.timeout(DEADLINE_S):
        output, said = await process.communicate()
    assert (process.returncode, said) == (0, b"")
    assert "films/opening-title.mp4" in output.decode()


@needs("tar")
async def test_shell_recipes_work_as_pasted(command: ClientCommand) -> None:
    (command.folder / "frames").mkdir()
    recipe = block(PAGE, "sh", "ssh render2")
    for shown, used in (("ssh render2 tar x -C /frames", "tar x -C frames"), ("--since 1d", "--since 5000d")):
        assert shown in recipe
        recipe = recipe.replace(shown, used)
    ended = await pasted(command, f"set -e\n{recipe}")
    assert ended.exit_code == 0, ended
    assert "== turntable-0013\n" in ended.stdout.decode()
    assert len(list((command.folder / "newest").iterdir())) >= 1
    assert len(list((command.folder / "frames/star").iterdir())) == 12


def test_install_commands_name_the_project() -> None:
    for line in block(PAGE, "sh", "--target").splitlines():
        words = shlex.split(line, comments=True)
        assert words[-1] == "."
