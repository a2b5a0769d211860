"""Progress of jobsvc download on a terminal and in a pipe."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clients.client_command import ClientCommand
from tests.clients.faulty_proxy import Answer, Exchange, FaultyProxy
from tests.conftest import MakeJob, Serve

SIZE = 8 << 20


@pytest.fixture
async def command(
    serve: Serve, make_job: MakeJob, tmp_path: Path, treat_new_files_as_stable: None
) -> ClientCommand:
    make_job("title-0042", output=bytes(SIZE))
    here = tmp_path / "here"
    here.mkdir()
    return ClientCommand.of(await serve(), here)


async def slowly(exchange: Exchange) -> Answer:
    """Send the bodies of files in three seconds: a process can be stopped for one of them."""
    answer = await exchange.forward()

    async def body(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            await asyncio.sleep(3 * len(piece) / SIZE)
            yield piece

    if exchange.is_file and answer.has_body:
        answer.body = body(answer.body)
    return answer


async def test_bar_moves_on_a_terminal_and_ends_with_a_line(command: ClientCommand) -> None:
    async with (proxy := FaultyProxy(command.port, always=[slowly])).serving():
        ended = await command.through(proxy.port).run_on_terminal("download", "title-0042")
    assert (ended.exit_code, ended.stdout) == (0, b"film.mp4\n"), ended
    percents = [int(text) for text in re.findall(r"(\d+) %", ended.stderr)]
    assert len(set(percents)) >= 5
    assert percents == sorted(percents)
    assert "MiB/s" in ended.stderr
    assert re.search(
        r"\x1b\[2Kfilm\.mp4: 8\.00 MiB in .*, verified sha256 \w{16}\r\n\x1b\[\?25h$", ended.stderr
    )


async def test_drawn_lines_fit_a_narrow_terminal(command: ClientCommand) -> None:
    async with (proxy := FaultyProxy(command.port, always=[slowly])).serving():
        ended = await command.through(proxy.port).run_on_terminal("download", "title-0042", columns=30)
    shown = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", ended.stderr)
    drawn = shown.split("\r")[1:-2]
    assert len(drawn) >= 5
    assert max(map(len, drawn)) < 30


async def test_path_and_bar_share_a_terminal(command: ClientCommand) -> None:
    ended = await command.run_on_terminal("download", "title-0042", results_too=True)
    assert "\x1b[2Kfilm.mp4\r\nfilm.mp4: 8.00 MiB in " in ended.stderr


async def test_no_color_leaves_out_colours_on_a_terminal(command: ClientCommand) -> None:
    ended = await command.run_on_terminal("download", "title-0042", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*3\d", ended.stderr)


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
async def test_nothing_is_escaped_in_a_pipe(command: ClientCommand, term: str) -> None:
    ended = await command.run("download", "title-0042", TERM=term, FORCE_COLOR="1", CLICOLOR_FORCE="1")
    assert ended.exit_code == 0
    assert "\x1b" not in ended.stderr
    assert "\r" not in ended.stderr
    assert ended.stdout == b"film.mp4\n"


async def test_dumb_terminal_gets_plain_lines(command: ClientCommand) -> None:
    ended = await command.run_on_terminal("download", "title-0042", TERM="dumb")
    assert "\x1b" not in ended.stderr
    assert ended.stderr.count("\n") == 1


async def test_progress_can_be_turned_off_on_a_terminal(command: ClientCommand) -> None:
    ended = await command.run_on_terminal("download", "title-0042", JOBSVC_PROGRESS="never")
    assert (ended.exit_code, ended.stderr) == (0, "")


async def test_progress_can_be_turned_on_in_a_pipe(command: ClientCommand) -> None:
    ended = await command.run("download", "title-0042", JOBSVC_PROGRESS="always")
    assert ended.stderr.startswith("\x1b[?25l")


async def test_waiting_is_shown_on_a_terminal(command: ClientCommand) -> None:
    ended = await command.run_on_terminal("download", "title-0042", "--wait")
    assert "title-0042  " in ended.stderr
