"""Commands in documents, the demo and help texts work when they are pasted."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "sample_jobs/**/*.md", "benchmarks/*.md", "jobsvc/**/*.py")
    for path in ROOT.glob(pattern)
)
WRITES: Final = frozenset(
    {
        "-o",
        "-O",
        "-J",
        "-C",
        "--output",
        "--remote-name",
        "--remote-name-all",
        "--continue-at",
        ">",
        ">>",
        "tee",
    }
)
LINES_IN_AN_HOUR: Final = 1300
"""At 25 lines a minute, less the time to find the functions."""
FAILS: Final = frozenset({"-f", "--fail", "--fail-with-body"})
ENDS: Final = frozenset({";", "&&", "||", ")", "&", "do", "done"})


def commands(text: str) -> Iterator[list[str]]:
    """Find each curl command with a URL in a text; return its words and those of its pipeline."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        for match in re.finditer(r"(?<![\w/.-])curl(?= +[-$\"'h])", line):
            words = list(_pipeline(line[match.start() :]))
            if any("$" in word or "://" in word for word in words):  # otherwise it is only mentioned
                yield words


def _pipeline(text: str) -> Iterator[str]:
    words = shlex.shlex(text, posix=True, punctuation_chars=True)
    words.commenters = "#`"
    try:
        for word in words:
            if word in ENDS:
                return
            yield word
    except ValueError:  # a quote of the sentence around it
        return


def options(words: list[str]) -> set[str]:
    """Return the options of a command; grouped short options are split."""
    found: set[str] = set()
    for word in words:
        if re.fullmatch(r"-[A-Za-z]{2,}", word):
            found.update(f"-{letter}" for letter in word[1:])
        else:
            found.add(word.partition("=")[0])
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_curl_command_that_writes_a_file_fails_on_an_error_response(path: Path) -> None:
    for words in commands(path.read_text("utf-8")):
        found = options(words)
        assert not found & WRITES or "/dev/null" in words or found & FAILS, " ".join(words)


@pytest.mark.parametrize(
    ("line", "fails"),
    [
        ('curl -H "$auth" -C - -o title.mp4 $job/download', False),
        ('curl -fH "$auth" -OJ $job/download', True),
        ("curl -s $job/download | head -c 70000 > title.mp4", False),
        ("curl -sS $job/download >title.mp4", False),
        ("until curl --output=title.mp4 $job; do sleep 1; done", False),
        ("x=$(curl -fsS \\\n  -o title.mp4 $job)", True),
        ("`curl -O $job`", False),
    ],
)
def test_the_check_finds_commands_in_all_their_forms(line: str, fails: bool) -> None:  # noqa: FBT001
    (words,) = commands(line)
    assert options(words) & WRITES, words
    assert bool(options(words) & FAILS) is fails


def test_every_shell_recipe_is_valid_in_sh_and_bash() -> None:
    pages = [path for path in DOCUMENTS if path.suffix == ".md"]
    recipes = [
        recipe
        for path in pages
        for recipe in re.findall(r"```sh\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    ]
    assert recipes
    for shell in ("sh", "bash"):
        for recipe in recipes:
            subprocess.run([shell, "-n", "-c", recipe], check=True)


def test_documents_name_one_variable_for_the_token() -> None:
    for path in DOCUMENTS:
        assert not re.search(r"\$\{?(?!JOBSVC_)[A-Z_]*TOKEN\b", path.read_text("utf-8")), path


def test_modules_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`(jobsvc/[\w/]+(?:\.py|\.json|/))`", text))
    assert len(named) > 30
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    short = set(re.findall(r"`(\w+\.py)`", text))
    assert [name for name in sorted(short) if not list(ROOT.glob(f"jobsvc/**/{name}"))] == []


def test_flows_of_the_architecture_are_an_hour_of_reading() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    marked = re.findall(r"\*\*Read `(jobsvc/[\w/]+\.py)`(?:: ([`\w, ]+))?\.\*\*", page)
    assert len(marked) == page.count("**Read `")
    lines = [lines_to_read((ROOT / path).read_text(), re.findall(r"\w+", names)) for path, names in marked]
    assert page.count("\n") + sum(lines) <= LINES_IN_AN_HOUR, dict(zip(marked, lines, strict=True))


def lines_to_read(source: str, functions: list[str]) -> int:
    """Count the lines of a module, or those of its docstring and of these functions, which must exist."""
    if not functions:
        return source.count("\n")
    module = ast.parse(source)
    docstring = module.body[0].end_lineno or 0
    found = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in functions
    }
    assert sorted(found) == sorted(functions)
    return docstring + sum(found.values())


def test_architecture_shows_the_layers_that_the_check_enforces() -> None:
    rows = re.findall(
        r"^\| `jobsvc/(\w+)/` \| (.*) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE
    )
    shown = {name: [set(re.findall(r"`(\w+)`", layer)) for layer in row.split(" > ")] for name, row in rows}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    enforced = {
        contract["containers"][0].removeprefix("jobsvc."): [
            set(layer.split(" | ")) for layer in contract["layers"]
        ]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers" and contract["containers"] != ["jobsvc"]
    }
    assert shown == enforced
