"""Output roots bound to an owner: no record of another owner can name a file in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobsvc.domain.errors import LogMissing, OutputMissing
from jobsvc.settings.parsers import output_root
from jobsvc.storage.jobs.reader import JobsRoot
from jobsvc.storage.layout import OutputRoot
from tests.conftest import MakeJob, Serve, StartProcess, put


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A root with a file of each owner."""
    for owner in ("anna", "bert"):
        put(tmp_path / "shared" / owner / "film.mp4", owner.encode())
    return tmp_path / "shared"


def named(make_job: MakeJob, owner: str, path: Path) -> None:
    make_job(f"of-{owner}", owner=owner, status="completed", outputPath=str(path), logPath=str(path))


def readable(root: JobsRoot, owner: str) -> bool:
    job = root.read(f"of-{owner}").job
    try:
        root.open_output(job).close()
        root.open_log(job).close()
    except (OutputMissing, LogMissing):
        return False
    assert root.read(f"of-{owner}").has_output
    return True


@pytest.mark.parametrize("plain_above", [False, True])
def test_only_records_of_the_owner_name_files_in_a_bound_root(
    jobs_root: Path, make_job: MakeJob, shared: Path, *, plain_above: bool
) -> None:
    tied = OutputRoot("anna", shared / "anna")
    root = JobsRoot(jobs_root, (shared, tied) if plain_above else (tied,))
    for owner in ("anna", "bert"):
        named(make_job, owner, shared / "anna" / "film.mp4")
        for made in (root, JobsRoot.of_arguments(*root.arguments())):
            assert readable(made, owner) == (owner == "anna")
    named(make_job, "anna", shared / "bert" / "film.mp4")
    assert readable(root, "anna") == plain_above


def test_nearest_root_decides_however_many_slashes_its_path_starts_with(
    jobs_root: Path, make_job: MakeJob, shared: Path
) -> None:
    root = JobsRoot(jobs_root, (shared, OutputRoot("anna", Path(f"/{shared}/anna"))))
    for owner in ("anna", "bert"):
        named(make_job, owner, shared / "anna" / "film.mp4")
        assert readable(root, owner) == (owner == "anna")


def test_directory_may_be_bound_to_several_owners(jobs_root: Path, make_job: MakeJob, shared: Path) -> None:
    root = JobsRoot(jobs_root, (OutputRoot("anna", shared), OutputRoot("bert", shared)))
    for owner in ("anna", "bert", "carl"):
        named(make_job, owner, shared / "anna" / "film.mp4")
        assert readable(root, owner) == (owner != "carl")


def test_dots_and_slashes_lead_into_no_root_of_another_owner(
    jobs_root: Path, make_job: MakeJob, shared: Path
) -> None:
    root = JobsRoot(jobs_root, (OutputRoot("anna", shared / "anna"), OutputRoot("bert", shared / "bert")))
    for path in ("bert/../anna/film.mp4", "./anna//film.mp4", "anna/./film.mp4"):
        make_job("of-bert", owner="bert", status="completed", outputPath=f"{shared}/{path}")
        assert not root.read("of-bert").has_output


def test_path_that_starts_with_a_slash_has_no_owner(tmp_path: Path) -> None:
    assert output_root("/srv/a=/b") == Path("/srv/a=/b")
    assert output_root("acme=/srv/acme") == OutputRoot("acme", Path("/srv/acme"))
    assert output_root("acme & co=/srv/a=b") == OutputRoot("acme & co", Path("/srv/a=b"))
    assert output_root("./a=/b") == Path.cwd() / "a=/b"
    assert output_root("a=b") == Path.cwd() / "a=b"


async def test_file_of_another_owner_is_not_sent(serve: Serve, make_job: MakeJob, shared: Path) -> None:
    make_job("mine", owner="anna", status="completed", outputPath=str(shared / "anna" / "film.mp4"))
    make_job("stolen", owner="anna", status="completed", outputPath=str(shared / "bert" / "film.mp4"))
    roots = tuple(OutputRoot(owner, shared / owner) for owner in ("anna", "bert"))
    service = await serve(output_roots=roots)
    assert (await service.download("mine")).body == b"anna"
    assert (await service.download("stolen")).code == "output-missing"


async def test_option_binds_a_directory_to_an_owner(
    start_process: StartProcess, make_job: MakeJob, shared: Path
) -> None:
    make_job("mine", owner="anna", status="completed", outputPath=str(shared / "anna" / "film.mp4"))
    make_job("stolen", owner="anna", status="completed", outputPath=str(shared / "bert" / "film.mp4"))
    service = start_process("--output-root", f"anna={shared}/anna", "--output-root", f"bert={shared}/bert")
    assert (await service.download("mine")).body == b"anna"
    assert (await service.download("stolen")).code == "output-missing"
