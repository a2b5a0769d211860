from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobsvc.runner.event import Event
from jobsvc.runner.regex_file import GROUPS, RegexFileError, load_regex_file


def write(folder: Path, *patterns: str) -> Path:
    path = folder / "regex.toml"
    path.write_text("patterns = [" + ", ".join(f"'''{pattern}'''" for pattern in patterns) + "]", "utf-8")
    return path


@pytest.mark.parametrize(
    ("pattern", "line", "event"),
    [
        (r"Frame (?P<frame>-?\d+)", "> Frame -12", Event(frame=-12)),
        (r"(?P<percent>[\d.]+) %", "42.5 %", Event(percent=42.5)),
        (r"Tile (?P<part>\d+/\d+)", "Tile 3/12", Event(part=0.25)),
        (r"Frame is at (?P<part>\d+)", "Frame is at 25", Event(part=0.25)),
        (r"(?P<done>\d+) of (?P<total>\d+)", "3 of 10", Event(done=3, total=10)),
        (r"wrote (?P<output>.+)", "wrote '/out/a b.exr' ", Event(output="/out/a b.exr")),
        (r"phase=(?P<phase>.*)", "phase=beauty ", Event(phase="beauty")),
        (r"(?i)error: (?P<error>.+)", "ERROR: no disk", Event(error="no disk")),
    ],
)
def test_named_groups_become_an_event(tmp_path: Path, pattern: str, line: str, event: Event) -> None:
    assert load_regex_file(write(tmp_path, pattern))(line) == event


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (r"Frame (?P<frame>.*)", "Frame x"),
        (r"Frame (?P<frame>.*)", "Frame " + "9" * 5000),
        (r"(?P<percent>.*)", "nan"),
        (r"(?P<percent>.*)", "inf"),
        (r"(?P<percent>.*)", "-3"),
        (r"(?P<part>.*)", "1/0"),
        (r"(?P<done>.*)", "-1"),
        (r"(?P<output>.*)", "\0"),
        (r"(?P<phase>.*)", " "),
        (r"a(?P<frame>\d+)?", "a"),
        (r"Frame (?P<frame>\d+)", "frame 3"),
    ],
)
def test_text_that_is_no_value_is_ignored(tmp_path: Path, pattern: str, line: str) -> None:
    assert load_regex_file(write(tmp_path, pattern))(line) is None


def test_all_patterns_are_combined_and_the_first_value_counts(tmp_path: Path) -> None:
    parse = load_regex_file(write(tmp_path, r"^(?P<frame>\d+)", r"(?P<frame>\d+)$", r" (?P<percent>\d+)%"))
    assert parse("3 42% 5") == Event(frame=3, percent=42)


def test_only_the_beginning_of_a_long_line_is_searched(tmp_path: Path) -> None:
    parse = load_regex_file(write(tmp_path, r"Frame (?P<frame>\d+)"))
    assert parse("Frame 3" + " " * 100_000) == Event(frame=3)
    assert parse(" " * 100_000 + "Frame 3") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patterns = [", "is not valid TOML:"),
        ("patterns = ['a(?P<frame>.)']\npatterns = []", "is not valid TOML:"),
        ("[" * 5000, "is not valid TOML:"),
        ("", "patterns has to be a list of regular expressions, for example"),
        ("patterns = []", "patterns has to be a list of regular expressions, for example"),
        ("patterns = 'a'", "patterns has to be a list of regular expressions, for example"),
        ("pattern = ['a']", "unknown key 'pattern': the only key is patterns, for example"),
        ("patterns = [3]", "patterns[0] is not a string: write it in single quotes"),
        ("patterns = ['(?P<frame>.)', '(']", "patterns[1] is not a valid regular expression: missing )"),
        ("patterns = ['(?P<frame>a{99999999999})']", "patterns[0] is not a valid regular expression: "),
        (
            "patterns = ['(?P<frames>.)']",
            "patterns[0]: unknown group 'frames': use frame, part, percent, done",
        ),
        ("patterns = ['a(b)']", "patterns[0] has no named group: add one of frame, part, percent"),
    ],
)
def test_error_names_the_file_the_key_and_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "regex.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(RegexFileError, match=re.escape(message)) as caught:
        load_regex_file(path)
    assert str(caught.value).startswith(f"{path}")


def test_error_of_deep_pattern(tmp_path: Path) -> None:
    with pytest.raises(RegexFileError, match="not a valid regular expression"):
        load_regex_file(write(tmp_path, "(" * 5000 + ")" * 5000))


def test_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(RegexFileError, match=r"missing.toml can not be read: No such file or directory"):
        load_regex_file(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b"patterns = ['\xe4']")
    with pytest.raises(RegexFileError, match=r"latin.toml is not UTF-8: save it in this encoding"):
        load_regex_file(tmp_path / "latin.toml")


def test_doubtful_pattern_gives_no_warning(tmp_path: Path) -> None:
    assert load_regex_file(write(tmp_path, r"[[a](?P<frame>\d)"))("a3") == Event(frame=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.text(), group=st.sampled_from(sorted(GROUPS)))
def test_no_line_makes_a_pattern_raise(tmp_path: Path, line: str, group: str) -> None:
    parse = load_regex_file(write(tmp_path, rf"(?s)(?P<{group}>.*)"))
    assert parse(line) != Event()
