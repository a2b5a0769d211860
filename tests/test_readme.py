"""README's tables and recipes are the code's own; each thing is imported where it is compared."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from jobsvc.domain.record import parse_record
from jobsvc.settings import OPTIONS, Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def _table(heading: str) -> list[list[str]]:
    """Take the cells of the first table below a heading, without their code marks."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows, f"no table below {heading}"
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]


def _recipe(language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(block for block in blocks if containing in block)


def test_the_options_are_those_of_the_settings() -> None:
    expected = [[option.flag, option.variable, option.default] for option in OPTIONS]
    assert [row[:3] for row in _table("Configuration")] == expected


def test_the_codes_and_their_statuses_are_those_of_the_problems() -> None:
    from jobsvc.web.problems import CODES  # noqa: PLC0415 - the other tests need no web floor

    expected = {code: int(kind.status) for code, kind in CODES.items()}
    assert {code: int(status) for code, status, *_ in _table("Errors")} == expected


def test_every_refusal_of_the_domain_has_its_row() -> None:
    from jobsvc.domain.errors import Refusal  # noqa: PLC0415 - as above

    def codes(kind: type[Refusal]) -> set[str]:
        return {kind.code}.union(*map(codes, kind.__subclasses__()))

    assert codes(Refusal) <= {row[0] for row in _table("Errors")}


def test_the_routes_are_those_of_the_service(tmp_path: Path) -> None:
    from jobsvc.service import build_app  # noqa: PLC0415 - as above

    app = build_app(Settings(jobs_root=tmp_path / "jobs", state_dir=tmp_path / "state"))
    served = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.resource is not None and route.method not in {"HEAD", "OPTIONS", "*"}
    }
    assert {row[0] for row in _table("Routes")} == served


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)", README)) - {"demo", "test", "check", "bench"} == set()
    assert set(re.findall(r"\bmake (\w+)", README)) <= targets


def _by_shell(job: Path) -> None:
    recipe = _recipe("sh", "mktemp").replace("/srv/farm/jobs/opening-title-0042", str(job))
    subprocess.run(["sh", "-eu", "-c", recipe], check=True)


def _by_python(job: Path) -> None:
    names: dict[str, Callable[[str, object], None]] = {}
    exec(_recipe("python", "write_status"), names)  # noqa: S102 - our own page
    names["write_status"](str(job), {"status": "rendering", "owner": "acme", "progress": 42})


@pytest.mark.parametrize("recipe", [_by_shell, _by_python])
def test_a_farm_that_follows_a_recipe_writes_a_good_record_and_nothing_else(
    tmp_path: Path, recipe: Callable[[Path], None]
) -> None:
    (tmp_path / "status.json").write_text("an older one")
    before = (tmp_path / "status.json").stat().st_ino
    recipe(tmp_path)
    record = tmp_path / "status.json"
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]
    assert record.stat().st_ino != before, "written in place"
    assert record.stat().st_mode & 0o777 == 0o644
    assert parse_record("job", orjson.loads(record.read_bytes()), 0).progress == 42


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
