"""An output root of an owner is refused if others could name its files by another path."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobsvc.cli import main
from jobsvc.settings.directories import check_disjoint
from jobsvc.settings.tied_roots import check_tied_roots
from jobsvc.storage.layout import OutputRoot

Alias = Callable[[Path, Path], None]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A directory for each owner and one that all share."""
    for name in ("anna/shots", "bert", "shared"):
        (tmp_path / "out" / name).mkdir(parents=True)
    return tmp_path / "out"


@pytest.fixture(params=["symbolic link", "bind mount"])
def alias(request: pytest.FixtureRequest) -> Iterator[Alias]:
    """Gives a directory another name."""
    points: list[Path] = []

    def make(name: Path, folder: Path) -> None:
        if request.param == "symbolic link":
            name.symlink_to(folder)
            return
        name.mkdir()
        if shutil.which("mount") is None or subprocess.call(["mount", "--bind", folder, name]):
            pytest.skip("mounting is not allowed here")
        points.append(name)

    yield make
    for point in reversed(points):
        subprocess.check_call(["umount", point])


def refused(tied: OutputRoot, *others: Path | OutputRoot, match: str) -> None:
    for roots in ((tied, *others), (*others, tied)):
        with pytest.raises(ValueError, match=match):
            check_tied_roots(tied, roots)


def accepted(*roots: Path | OutputRoot) -> None:
    for root in roots:
        if isinstance(root, OutputRoot):
            check_tied_roots(root, roots)


def test_roots_whose_names_show_their_nesting_are_accepted(out: Path) -> None:
    anna, bert = OutputRoot("anna", out / "anna"), OutputRoot("bert", out / "bert")
    accepted(anna, bert, out / "shared")
    accepted(out, anna, bert)
    accepted(OutputRoot("anna", out), out / "shared", bert)
    accepted(anna, OutputRoot("bert", out / "anna"))
    accepted(anna, OutputRoot("anna", out / "bert" / ".." / "anna"), OutputRoot("anna", out))


def test_links_that_lead_only_to_the_root_of_an_owner_are_accepted(
    out: Path, tmp_path: Path, alias: Alias
) -> None:
    alias(tmp_path / "hers", out / "anna")
    accepted(OutputRoot("anna", tmp_path / "hers"), OutputRoot("anna", out / "anna"), out / "shared")
    accepted(OutputRoot("anna", tmp_path / "hers"), OutputRoot("anna", out / "anna"), out)
    accepted(OutputRoot("anna", tmp_path / "hers"), out / "shared", out / "bert")


def test_root_that_is_also_for_all_owners_is_refused(out: Path) -> None:
    refused(
        OutputRoot("anna", out / "anna"),
        out / "bert" / ".." / "anna",
        match="also an output root of all owners",
    )


def test_another_name_of_the_root_is_refused(out: Path, tmp_path: Path, alias: Alias) -> None:
    alias(tmp_path / "alias", out / "anna")
    for one, other in ((tmp_path / "alias", out / "anna"), (out / "anna", tmp_path / "alias")):
        refused(
            OutputRoot("anna", one), other, match=f"is the same directory as '{other}', an output root of all"
        )
        refused(OutputRoot("anna", one), OutputRoot("bert", other), match="of the owner 'bert'")


def test_hidden_root_within_another_one_is_refused(out: Path, tmp_path: Path, alias: Alias) -> None:
    alias(tmp_path / "alias", out)
    for outer, tied in ((tmp_path / "alias", out / "anna"), (out, tmp_path / "alias" / "anna")):
        refused(OutputRoot("anna", tied), outer, match=f"is inside '{outer}'.*'{outer}/anna'")
    alias(out / "named-as-within", tmp_path / "out" / "anna")
    refused(OutputRoot("anna", out / "named-as-within"), out, match=f"is inside '{out}'.*'{out}/anna'")


def test_hidden_root_around_another_one_is_refused(out: Path, tmp_path: Path, alias: Alias) -> None:
    alias(tmp_path / "alias", out / "anna" / "shots")
    refused(OutputRoot("anna", out / "anna"), tmp_path / "alias", match=f"contains '{tmp_path}/alias'")


def test_root_mounted_within_another_one_is_refused(
    out: Path, tmp_path: Path, alias: Alias, request: pytest.FixtureRequest
) -> None:
    anna = tmp_path / "anna"
    (anna / "shots").mkdir(parents=True)
    alias(out / "mounted", anna)
    roots = OutputRoot("anna", anna / "shots"), out
    if "link" in request.node.name:  # no path of a record leads through it
        accepted(*roots)
    else:
        refused(*roots, match=f"is inside '{out}'.*'{out}/mounted/shots'")


def test_state_directory_is_found_within_a_root_by_any_name(out: Path, tmp_path: Path, alias: Alias) -> None:
    alias(tmp_path / "alias", out / "anna")
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    for served, state in ((out / "anna", "alias/state"), (tmp_path / "alias", "out/anna/state")):
        with pytest.raises(ValueError, match="is inside the output root"):
            check_disjoint(tmp_path / state, jobs, (served,))
        with pytest.raises(ValueError, match="is inside the jobs root"):
            check_disjoint(tmp_path / state, served, ())


def test_root_whose_links_form_a_loop_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    refused(OutputRoot("anna", tmp_path / "round"), out, match="cannot be resolved")


@pytest.mark.parametrize("command", [("serve",), ("serve", "--check-config"), ("check",)])
def test_commands_name_both_roots_and_the_remedy(out: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "alias").symlink_to(out)
    roots = ("--output-root", f"anna={out}/anna", "--output-root", str(tmp_path / "alias"))
    words = (*command, str(tmp_path / "jobs"), "--state-dir", str(tmp_path / "state"), *roots)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert f"output-root: 'anna={out}/anna' is inside '{tmp_path}/alias'" in result.output
    assert "separate the directories (from the flag --output-root)" in result.output
    assert not (tmp_path / "state").exists()
