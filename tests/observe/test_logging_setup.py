from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import pty
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from jobsvc.observe import logging_setup, request_id

SECRET = "Zk3-9_xQvW8bTn2LrYc7HdMf5GsJpA1uEoI4RtBv6Kw"  # noqa: S105 - nobody's


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_event_is_one_line_of_json_with_its_values() -> None:
    stream = io.StringIO()
    logging_setup.configure(stream)
    structlog.get_logger("jobsvc.x").info("a job is there", job="a", progress=1.5)
    (line,) = lines(stream)
    assert list(line)[:4] == ["time", "level", "logger", "event"]
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {
        "level": "info",
        "logger": "jobsvc.x",
        "event": "a job is there",
        "job": "a",
        "progress": 1.5,
    }


def test_library_loggers_use_the_same_format() -> None:
    stream = io.StringIO()
    logging_setup.configure(stream)
    logging.getLogger("aiohttp.server").error("Error handling %s", "request")
    logging.getLogger("asyncio").debug("not told")
    assert [line["event"] for line in lines(stream)] == ["Error handling request"]


def test_second_configuration_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    logging_setup.configure(first)
    logging_setup.configure(second)
    structlog.get_logger().info("once")
    assert (first.getvalue(), len(lines(second))) == ("", 1)


async def test_line_has_the_id_of_its_request() -> None:
    stream = io.StringIO()
    logging_setup.configure(stream)

    async def answer(own: str) -> None:
        request_id.bind(own)
        await asyncio.sleep(0)
        structlog.get_logger().info(own)
        logging.getLogger("aiohttp.server").info(own)

    await asyncio.gather(answer("r1"), answer("r2"))
    structlog.get_logger().info("outside")
    logged = lines(stream)
    assert all(line["requestId"] == line["event"] for line in logged[:-1])
    assert "requestId" not in logged[-1]


def test_exception_is_in_the_same_line() -> None:
    stream = io.StringIO()
    logging_setup.configure(stream)
    try:
        int("what went wrong")
    except ValueError:
        structlog.get_logger().exception("it failed")
    (line,) = lines(stream)
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("with base 10: 'what went wrong'")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["json", "terminal"])
def test_no_secret_is_logged_wherever_it_occurs(stream: io.StringIO) -> None:
    logging_setup.configure(stream)
    mine, theirs = structlog.get_logger("jobsvc"), logging.getLogger("aiohttp.server")
    secret = f"jsvc_{SECRET}"
    mine.info(secret, key=secret, **{secret: 1})
    mine.info(
        "x",
        headers={"Authorization": f"Bearer {SECRET}"},
        authorization=SECRET,
        raw=[(b"a", secret.encode())],
    )
    mine.info("%s", secret)
    theirs.info("GET /d?sig=%s HTTP/1.1", SECRET)
    theirs.info("x", extra={"token": secret})
    try:
        try:
            os.environ[secret]
        except KeyError as inner:
            raise RuntimeError(f"Authorization: Basic {SECRET}") from inner
    except RuntimeError:
        mine.exception("x")
        theirs.exception("x", stack_info=True)
    assert SECRET not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") >= 9


@given(st.text(), st.text())
def test_any_event_is_one_line(event: str, value: str) -> None:
    for stream in (io.StringIO(), Terminal()):
        logging_setup.configure(stream)
        structlog.get_logger().info(event, value=value)
        assert stream.getvalue().count("\n") == 1
        assert stream.getvalue().endswith("\n")


def test_terminal_gets_keys_values_and_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    logging_setup.configure(stream)
    structlog.get_logger().info("a job", job="a")
    assert "\x1b[" in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    logging_setup.configure(plain)
    structlog.get_logger("jobsvc").info("a job", job="a\x1b[2J", many="b c")
    assert plain.getvalue().split("Z ", 1)[1] == "[info     ] a job [jobsvc] job=a\\x1b[2J many='b c'\n"


def test_real_terminal_is_detected() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w", encoding="utf-8") as terminal:
        logging_setup.configure(terminal)
        structlog.get_logger().info("hello", job="a")
        logged = os.read(leader, 4096).decode()
    os.close(leader)
    assert "hello" in logged
    assert not logged.startswith("{")


def test_file_name_that_is_not_utf_8_does_not_lose_the_line() -> None:
    stream = io.StringIO()
    logging_setup.configure(stream)
    structlog.get_logger().info("x", file="\udcff", size=2**70)
    line = json.loads(stream.getvalue())
    assert (line["file"], line["size"]) == ("\udcff", 2**70)
