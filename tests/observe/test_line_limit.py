"""However many requests are refused, the number of log lines is bounded, and omitted lines are counted."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import structlog

from jobsvc.observe import line_limit, logging_setup
from jobsvc.observe.line_limit import LINES_OF_A_KIND, LINES_OF_A_TOKEN, LINES_OF_ALL_KINDS, LineLimit
from tests.eventually import wait_until


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Setting:
    """A log with a clock that a test advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = io.StringIO()
        self.now = 0.0
        self.due: list[Callable[[], None]] = []
        limit = LineLimit(lambda: self.now, self.later)
        monkeypatch.setattr(logging_setup, "LineLimit", lambda: limit)
        logging_setup.configure(self.stream)
        self.web = structlog.get_logger("jobsvc.web")

    def later(self, report: Callable[[], None]) -> None:
        self.due.append(report)

    def refuse(self, status: int = 401, route: str = "/api/jobs", **fields: Any) -> None:
        self.web.info("refused", status=status, route=route, **fields)

    def next_interval(self) -> None:
        self.now += line_limit.INTERVAL_S
        due, self.due = self.due, []
        for report in due:
            report()

    def lines(self) -> list[dict[str, Any]]:
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        return [orjson.loads(line) for line in text.splitlines()]


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    return Setting(monkeypatch)


def test_lines_of_one_kind_are_limited_and_the_rest_counted(setting: Setting) -> None:
    for number in range(1000):
        setting.refuse(peer=f"192.0.2.{number % 250}", requestId=str(number))
    assert len(setting.lines()) == LINES_OF_A_KIND
    setting.next_interval()
    (line,) = setting.lines()
    assert (line["event"], line["level"], line["lines"]) == ("log-lines-omitted", "warning", 995)
    assert line["most"] == [{"event": "refused", "status": 401, "route": "/api/jobs", "lines": 995}]


def test_other_kinds_are_still_written(setting: Setting) -> None:
    for _ in range(100):
        setting.refuse()
    setting.lines()
    setting.refuse(404)
    setting.refuse(route="/api/events")
    setting.refuse(code="unauthorized", reason="expired")
    assert len(setting.lines()) == 3


def test_all_kinds_together_are_limited(setting: Setting) -> None:
    for status in range(400, 600):
        setting.refuse(status)
    assert len(setting.lines()) == LINES_OF_ALL_KINDS
    setting.next_interval()
    (line,) = setting.lines()
    assert (line["lines"], line["kinds"], len(line["most"])) == (180, 180, 10)


def test_refusals_of_many_kinds_hide_no_error(setting: Setting) -> None:
    for status in range(400, 500):
        setting.refuse(status)
    setting.lines()
    setting.web.error("request-failed", method="GET", route="/api/jobs")
    setting.web.warning("refused", status=503, route="/api/jobs")
    setting.refuse(404)
    assert [line["event"] for line in setting.lines()] == ["request-failed", "refused"]


def test_refusals_without_a_token_hide_none_of_a_token(setting: Setting) -> None:
    for status in range(400, 500):
        setting.refuse(status)
        setting.refuse(code="unauthorized", reason="revoked")
    setting.lines()
    setting.refuse(code="unauthorized", reason="revoked", tokenId="a")
    setting.refuse(404)
    assert [line.get("tokenId") for line in setting.lines()] == ["a"]


def test_refusals_of_a_token_hide_none_without_one(setting: Setting) -> None:
    for status in range(400, 500):
        for token_id in "abcd":
            setting.refuse(status, tokenId=token_id)
    assert len(setting.lines()) == LINES_OF_ALL_KINDS
    setting.refuse()
    assert len(setting.lines()) == 1


def test_refusals_of_a_token_hide_none_of_another(setting: Setting) -> None:
    for status in range(400, 500):
        setting.refuse(status, tokenId="a")
    assert len(setting.lines()) == LINES_OF_A_TOKEN
    for _ in range(100):
        setting.refuse(tokenId="b")
    assert [line["tokenId"] for line in setting.lines()] == ["b"] * LINES_OF_A_KIND
    setting.next_interval()
    (line,) = setting.lines()
    assert line["most"][0] == {
        "event": "refused", "status": 401, "route": "/api/jobs", "tokenId": "b", "lines": 95
    }  # fmt: skip
    setting.refuse(tokenId="a")
    assert len(setting.lines()) == 1


def test_errors_of_all_kinds_together_are_limited(setting: Setting) -> None:
    for number in range(100):
        setting.web.error("request-failed", route=str(number))
    assert len(setting.lines()) == LINES_OF_ALL_KINDS


def test_after_an_interval_lines_are_written_again(setting: Setting) -> None:
    for _ in range(3):
        for _ in range(10):
            setting.refuse()
        setting.next_interval()
    assert [line["event"] for line in setting.lines()] == [
        *["refused"] * LINES_OF_A_KIND,
        "log-lines-omitted",
    ] * 3


def test_no_report_if_nothing_was_omitted(setting: Setting) -> None:
    setting.refuse()
    setting.next_interval()
    assert [line["event"] for line in setting.lines()] == ["refused"]
    assert not setting.due


def test_errors_that_libraries_log_are_limited_too(setting: Setting) -> None:
    for number in range(100):
        fault = ConnectionError(number)
        logging.getLogger("aiohttp.server").error("Error handling request %d", number, exc_info=fault)
        setting.web.error("request-failed", method="GET", route="/api/jobs", exc_info=fault)
    assert len(setting.lines()) == 2 * LINES_OF_A_KIND
    setting.next_interval()
    (line,) = setting.lines()
    assert line["lines"] == 200 - 2 * LINES_OF_A_KIND
    assert {"logger": "aiohttp.server", "error": "ConnectionError", "lines": 95} in line["most"]


def test_lines_not_caused_by_requests_are_never_omitted(setting: Setting) -> None:
    for number in range(100):
        setting.web.info("link-created", job=str(number))
        structlog.get_logger("jobsvc.index").warning("record-unreadable", job=str(number))
    assert len(setting.lines()) == 200


def test_report_is_logged_without_further_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_limit, "INTERVAL_S", 0.01)
    stream = io.StringIO()
    logging_setup.configure(stream)
    for _ in range(100):
        structlog.get_logger("jobsvc.web").info("refused", status=401)
    wait_until(lambda: '"log-lines-omitted"' in stream.getvalue())
