from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator

import pytest

from jobsvc.cli.client.output import json_text
from jobsvc.cli.client.terminal import (
    ProgressForm,
    fit,
    has_colour,
    one_line,
    printable,
    progress_form,
    width_of,
)
from tests.cli.client.conftest import service_with, variables
from tests.cli.client.pseudo_terminal import run_on_terminal
from tests.conftest import MakeJob
from tests.eventually import wait_until
from tests.programs.service_runner import Process

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def write_jobs(make_job: MakeJob) -> None:
    make_job("failed-with-a-long-name", status="failed", error="許可 " * 50)
    make_job("rendering", status="rendering", progress=42, phase="beauty\x1b[2J")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with service_with(tmp_path_factory.mktemp("service"), write_jobs) as running:
        yield running


def screen(service: Process, *words: str, columns: int = 80, **environment: str) -> list[str]:
    with run_on_terminal(service, *words, columns=columns, **environment) as terminal:
        assert terminal.wait() == 0
    return terminal.received.decode().splitlines()


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 120])
def test_table_fits_the_terminal_and_keeps_ids_and_states(service: Process, columns: int) -> None:
    lines = [ESCAPE.sub("", line) for line in screen(service, "jobs", columns=columns)]
    assert len(lines) == 3
    assert max(map(width_of, lines)) <= max(columns, width_of("failed-with-a-long-name  rendering"))
    assert sorted(line.split()[:2] for line in lines) == [
        ["ID", "STATUS"],
        ["failed-with-a-long-name", "failed"],
        ["rendering", "rendering"],
    ]
    assert ("DETAIL" in lines[0]) is (columns >= 80)


def test_states_have_colours_on_a_terminal(service: Process) -> None:
    assert any("\x1b[31mfailed\x1b[0m" in line for line in screen(service, "jobs"))


def test_no_color_turns_colours_off(service: Process) -> None:
    assert not any("\x1b" in line for line in screen(service, "jobs", NO_COLOR="1"))


def test_escape_sequences_of_the_farm_do_not_reach_the_terminal(service: Process) -> None:
    lines = screen(service, "jobs", columns=120) + screen(service, "status", "rendering")
    assert [line.count("\\x1b[2J") for line in lines if "beauty" in line] == [1, 1]


def test_token_is_typed_without_echo(service: Process) -> None:
    url = variables(service)["JOBSVC_URL"]
    with run_on_terminal(service, "login", url, JOBSVC_TOKEN="") as terminal:
        wait_until(lambda: b"Token: " in terminal.received)
        terminal.type(f"{service.token}\n")
        assert terminal.wait() == 0
    assert str(service.token).encode() not in terminal.received
    assert b"Logged in to" in terminal.received


def test_interrupt_at_the_prompt_has_its_exit_code(service: Process) -> None:
    with run_on_terminal(service, "login", JOBSVC_TOKEN="") as terminal:
        wait_until(lambda: b"Token: " in terminal.received)
        terminal.type("\x04")
        assert terminal.wait() == 130


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("variable", "form", "without_terminal"),
    [
        ("", ProgressForm.LIVE, ProgressForm.LINES),
        ("auto", ProgressForm.LIVE, ProgressForm.LINES),
        ("always", ProgressForm.LIVE, ProgressForm.LIVE),
        ("never", ProgressForm.NONE, ProgressForm.NONE),
    ],
)
def test_variable_selects_the_form_of_progress(
    monkeypatch: pytest.MonkeyPatch, variable: str, form: ProgressForm, without_terminal: ProgressForm
) -> None:
    monkeypatch.setenv("JOBSVC_PROGRESS", variable)
    monkeypatch.setattr("sys.stderr", FakeTerminal())
    assert progress_form() is form
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert progress_form() is without_terminal


def test_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stderr", FakeTerminal())
    assert progress_form() is ProgressForm.LINES
    assert not has_colour(FakeTerminal())


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\x00b\x7f\x85\x9b", "a\\x00b\\x7f\\x85\\x9b"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\udcff", "\\udcff"),
        ("許可 é", "許可 é"),
    ],
)
def test_control_characters_are_escaped(text: str, safe: str) -> None:
    assert printable(text) == safe


def test_white_space_becomes_one_space() -> None:
    assert one_line(" a\r\n\tb \x1b ") == "a b \\x1b"


@pytest.mark.parametrize(
    ("text", "columns", "fitting"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "abcd…"),
        ("許可証", 5, "許可…"),
        ("許可証", 4, "許…"),
        ("é" * 3, 3, "ééé"),
    ],
)
def test_text_is_shortened_by_its_width_on_the_terminal(text: str, columns: int, fitting: str) -> None:
    assert fit(text, columns) == fitting
    assert width_of(fitting) <= columns


def test_json_has_no_control_characters_and_the_same_value() -> None:
    value = {"a\x9b": "\x1b[31m\x7f\u202e\udcff 許可"}
    text = json_text(value, indent=2)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\udcff]", text)
    assert json.loads(text) == value
