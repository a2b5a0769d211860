"""jobsvc download against the real service: exit codes and results."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.clients.client_command import ClientCommand
from tests.clients.faulty_proxy import Answer, Exchange, FaultyProxy
from tests.clients.proxy_faults import flip_byte
from tests.conftest import MakeJob, Serve
from tests.programs.external_programs import CompletedProgram

UNKNOWN_TOKEN = f"jsvc_{'0' * 43}"
JOB = "title-0042"
FILM = bytes(range(256)) * 4096
STAR = {"name": "star", "path": "output/star.####.png", "role": "main", "frames": "1-3"}


@pytest.fixture
async def command(
    serve: Serve, make_job: MakeJob, tmp_path: Path, treat_new_files_as_stable: None
) -> ClientCommand:
    make_job(JOB, output=FILM)
    folder = make_job("frames", status="completed", outputs=[STAR])
    (folder / "output").mkdir()
    for frame in range(1, 4):
        (folder / f"output/star.{frame:04}.png").write_bytes(b"frame %d" % frame)
    make_job("failed", status="failed", error="no licence")
    make_job("canceled", status="canceled")
    make_job("rendering", status="rendering", progress=42)
    here = tmp_path / "here"
    here.mkdir()
    return ClientCommand.of(await serve(), here)


def entries(command: ClientCommand) -> list[str]:
    return sorted(entry.name for entry in command.folder.iterdir())


def last_line(ended: CompletedProgram) -> str:
    return ended.stderr.splitlines()[-1]


async def test_single_file_gets_its_name_in_the_current_directory(command: ClientCommand) -> None:
    ended = await command.run("download", JOB)
    assert (ended.exit_code, ended.stdout) == (0, b"film.mp4\n"), ended
    assert (command.folder / "film.mp4").read_bytes() == FILM
    assert entries(command) == ["film.mp4"]


async def test_several_files_get_a_directory_named_after_the_job(command: ClientCommand) -> None:
    ended = await command.run("download", "frames")
    assert ended.exit_code == 0, ended
    paths = [Path(line) for line in ended.stdout.decode().splitlines()]
    assert sorted(path.name for path in paths) == [f"star.{frame:04}.png" for frame in range(1, 4)]
    assert {path.parts[0] for path in paths} == {"frames"}
    assert sorted((command.folder / path).read_bytes() for path in paths) == [
        b"frame 1",
        b"frame 2",
        b"frame 3",
    ]
    assert "3 files" in last_line(ended)
    assert "each verified by its sha256" in last_line(ended)


async def test_last_line_has_size_time_rate_and_digest(command: ClientCommand) -> None:
    ended = await command.run("download", JOB, "-o", "a/b.mp4")
    assert ended.stdout == f"{Path('a/b.mp4')}\n".encode()
    assert last_line(ended).startswith("b.mp4: 1.00 MiB in ")
    assert last_line(ended).endswith(f"/s, verified sha256 {sha256(FILM).hexdigest()}")
    assert "\x1b" not in ended.stderr


async def test_without_verification_the_last_line_says_so(command: ClientCommand) -> None:
    ended = await command.run("download", JOB, "--no-verify")
    assert ended.exit_code == 0
    assert last_line(ended).endswith(", not verified")


async def test_json_describes_each_file(command: ClientCommand) -> None:
    lines = (await command.run("download", "frames", "--format", "jsonl")).stdout.splitlines()
    assert sorted(json.loads(line)["size"] for line in lines) == [7, 7, 7]
    (file,) = json.loads((await command.run("download", JOB, "--format", "json")).stdout)
    assert file["path"] == "film.mp4"
    assert (file["jobId"], file["size"], len(file["sha256"]), file["skipped"]) == (JOB, len(FILM), 64, False)


async def test_quiet_download_prints_only_the_path(command: ClientCommand) -> None:
    ended = await command.run("download", JOB, "-q")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, b"film.mp4\n", "")


async def test_existing_file_is_an_error_that_names_the_options(command: ClientCommand) -> None:
    (command.folder / "film.mp4").write_bytes(b"mine")
    ended = await command.run("download", JOB)
    assert (ended.exit_code, ended.stdout) == (1, b"")
    assert all(option in last_line(ended) for option in ("--skip", "--overwrite", "--rename"))
    assert (command.folder / "film.mp4").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("option", "content", "count"),
    [("--skip", b"mine", 1), ("--overwrite", FILM, 1), ("--rename", b"mine", 2)],
)
async def test_option_decides_about_an_existing_file(
    command: ClientCommand, option: str, content: bytes, count: int
) -> None:
    (command.folder / "film.mp4").write_bytes(b"mine")
    ended = await command.run("download", JOB, option)
    assert ended.exit_code == 0, ended
    assert (command.folder / "film.mp4").read_bytes() == content
    assert len(entries(command)) == count


async def test_one_output_is_selected(command: ClientCommand) -> None:
    ended = await command.run("download", "frames", "--output", "star", "-o", "to/")
    assert ended.exit_code == 0
    assert len(ended.stdout.splitlines()) == 3


async def test_archive_is_one_file(command: ClientCommand) -> None:
    ended = await command.run("download", "frames", "--archive", "tar")
    assert ended.exit_code == 0, ended
    (name,) = ended.stdout.decode().splitlines()
    assert (command.folder / name).read_bytes().count(b"star/star.000") == 3


async def test_standard_output_gets_the_bytes_alone(command: ClientCommand) -> None:
    ended = await command.run("download", JOB, "-o", "-")
    assert (ended.exit_code, ended.stdout) == (0, FILM), ended.stderr
    assert last_line(ended).startswith("standard output: 1.00 MiB in ")
    assert entries(command) == []


async def test_archive_on_standard_output_is_verified(command: ClientCommand) -> None:
    ended = await command.run("download", "frames", "--archive", "tar", "-o", "-")
    assert (ended.exit_code, ended.stdout.count(b"star/star.000")) == (0, 3), ended
    assert last_line(ended).startswith("standard output: ")
    assert last_line(ended).endswith("each of its files verified by its sha256")


async def test_several_files_cannot_be_written_to_standard_output(command: ClientCommand) -> None:
    ended = await command.run("download", "frames", "-o", "-")
    assert (ended.exit_code, ended.stdout) == (1, b"")
    assert "archive" in last_line(ended)


async def test_closed_standard_output_is_no_success(command: ClientCommand) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    async with command.running("download", JOB, "-o", "-", stdout=write_end) as process:
        os.close(write_end)
        async with asyncio.timeout(20):
            _, said = await process.communicate()
    assert (process.returncode, said) == (1, b"")


async def test_bytes_are_not_written_to_a_terminal(command: ClientCommand) -> None:
    ended = await command.run_on_terminal("download", JOB, "-o", "-", results_too=True)
    assert ended.exit_code == 2
    assert "Standard output is a terminal" in ended.stderr


@pytest.mark.parametrize(
    "words", [("--timeout", "1h"), ("-o", "-", "--skip"), ("-o", "-", "--format", "json"), ("-x", "0")]
)
async def test_contradiction_is_wrong_use(command: ClientCommand, words: tuple[str, ...]) -> None:
    assert (await command.run("download", JOB, *words)).exit_code == 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["failed", "--wait"], 3, "no licence"),
        (["failed"], 3, "failed"),
        (["canceled", "--wait"], 5, "canceled"),
        (["canceled"], 5, "canceled"),
        (["rendering"], 1, "wait"),
        (["rendering", "--wait", "--timeout", "1s"], 124, "rendering"),
        (["unknown"], 6, "No job"),
        ([JOB, "--output", "preview"], 6, "preview"),
        (["."], 2, "id"),
    ],
)
async def test_exit_code_says_what_was_wrong(
    command: ClientCommand, words: list[str], code: int, text: str
) -> None:
    ended = await command.run("download", *words)
    assert (ended.exit_code, ended.stdout) == (code, b""), ended
    assert text in last_line(ended)
    assert entries(command) == []


async def test_unknown_token_is_not_authorized(command: ClientCommand) -> None:
    ended = await command.run("download", JOB, JOBSVC_TOKEN=UNKNOWN_TOKEN)
    assert ended.exit_code == 4
    assert "jsvc_" not in ended.stderr


@pytest.mark.parametrize("to", [(), ("-o", "-")])
async def test_wrong_bytes_are_not_a_file(command: ClientCommand, to: tuple[str, ...]) -> None:
    async with (proxy := FaultyProxy(command.port, always=[flip_byte])).serving():
        ended = await command.through(proxy.port).run("download", JOB, "--retries", "1", *to)
    assert ended.exit_code == 7, ended
    assert not (command.folder / "film.mp4").exists()


async def test_waits_until_the_job_is_completed(command: ClientCommand, make_job: MakeJob) -> None:
    async with command.running("download", "rendering", "--wait") as process:
        assert process.stderr is not None
        assert await process.stderr.readline() == b"rendering  rendering  42 %\n"
        make_job("rendering", output=b"done")
        async with asyncio.timeout(20):
            output, said = await process.communicate()
    assert (process.returncode, output) == (0, b"film.mp4\n"), said
    assert b"rendering  completed  100 %\n" in said
    assert (command.folder / "film.mp4").read_bytes() == b"done"


class Holding:
    """A fault: bodies of files end after half of their bytes, without an end, until `release` is set."""

    def __init__(self) -> None:
        self.reached, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self, exchange: Exchange) -> Answer:
        answer = await exchange.forward()
        if exchange.is_file and answer.has_body:
            answer.body = self._held(answer.body, answer.length // 2)
        return answer

    async def _held(self, body: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
        async for piece in body:
            count -= len(piece)
            yield piece
            if count <= 0:
                self.reached.set()
                await self.release.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_download_is_continued_by_the_same_command(
    command: ClientCommand, number: signal.Signals
) -> None:
    holding = Holding()
    async with (proxy := FaultyProxy(command.port, always=[holding])).serving():
        through = command.through(proxy.port)
        async with through.running("download", JOB) as process, asyncio.timeout(20):
            await holding.reached.wait()
            process.send_signal(number)
            output, said = await process.communicate()
    assert (process.returncode, output) == (130, b"")
    assert said == b"jobsvc: Interrupted. The same command continues where this one stopped.\n"
    assert not (command.folder / "film.mp4").exists()
    assert (await command.run("download", JOB)).exit_code == 0
    assert (command.folder / "film.mp4").read_bytes() == FILM
