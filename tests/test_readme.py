"""Tables and commands of README and docs/ match the code; each module is imported where it is used."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from jobsvc.domain.outputs import Role
from jobsvc.domain.status_record import parse_record
from jobsvc.settings import OPTIONS, Settings
from tests.conftest import MakeJob, Serve
from tests.eventually import pause
from tests.programs.external_programs import needs, run
from tests.programs.ports import free_port
from tests.programs.service_runner import Service

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
API = (ROOT / "docs/api.md").read_text("utf-8")
CONFIGURATION = (ROOT / "docs/configuration.md").read_text("utf-8")
JOB_DIRECTORY = (ROOT / "docs/job-directory.md").read_text("utf-8")


def _table(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without code marks."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows, f"no table below {heading}"
    return [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]


def _recipe(page: str, language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return next(block for block in blocks if containing in block)


def test_options_equal_those_of_the_settings() -> None:
    expected = [[option.flag, option.variable, option.default] for option in OPTIONS]
    assert [row[:3] for row in _table(CONFIGURATION, "Options")] == expected


def test_codes_and_statuses_equal_those_of_the_problems() -> None:
    from jobsvc.web.problems import CODES  # noqa: PLC0415 - the other tests need no web floor

    expected = {code: int(kind.status) for code, kind in CODES.items()}
    assert {code: int(status) for code, status, *_ in _table(API, "Errors")} == expected


def test_every_error_of_the_domain_has_a_row() -> None:
    from jobsvc.domain.errors import ApiError  # noqa: PLC0415 - as above

    def codes(kind: type[ApiError]) -> set[str]:
        return {kind.code}.union(*map(codes, kind.__subclasses__()))

    assert codes(ApiError) <= {row[0] for row in _table(API, "Errors")}


def test_fields_for_pages_of_other_origins_are_those_of_the_service() -> None:
    from jobsvc.web.headers import cors  # noqa: PLC0415 - as above

    section = API.partition("\n## Pages of other origins\n")[2].partition("\n## ")[0]
    sends, reads = (
        section.partition(f"{start} ")[2].partition(".\n")[0] for start in ("can send", "can read")
    )
    assert tuple(re.findall(r"`(.+?)`", sends)) == cors.REQUEST_FIELDS
    assert tuple(re.findall(r"`(.+?)`", reads))[:-1] == cors.RESPONSE_FIELDS


def test_routes_equal_those_of_the_service(tmp_path: Path) -> None:
    from jobsvc.service import build_app  # noqa: PLC0415 - as above

    app = build_app(Settings(jobs_root=tmp_path / "jobs", state_dir=tmp_path / "state"))
    served = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.resource is not None and route.method not in {"HEAD", "OPTIONS", "*"}
    }
    assert {row[0] for row in _table(API, "Routes")} == served


def test_records_of_the_job_directory_page_are_valid() -> None:
    records = [orjson.loads(block) for block in re.findall(r"```json\n(.*?)```", JOB_DIRECTORY, re.DOTALL)]
    jobs = [parse_record(record.get("id", "job-1"), record, 0) for record in records]
    assert {len(job.outputs) for job in jobs} >= {0, 1, 2, 3}
    assert {output.role for job in jobs for output in job.outputs} >= {Role.MAIN, Role.PREVIEW}


def test_both_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)", README)) - {"demo", "test", "check", "bench"} == set()
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert set(re.findall(r"\bmake ([\w-]+)", README + contributing)) <= targets


@needs("curl", "mktemp")
async def test_quickstart_prints_what_readme_shows() -> None:
    install, *lines = _recipe(README, "sh", "serve sample_jobs").splitlines()
    assert "pip install" in install
    port = free_port()
    recipe = "\n".join([*lines, "wait", 'rm -r "$state"'])
    for shown, used in (
        (".venv/bin/jobsvc", f"{sys.executable} -m jobsvc"),
        ("serve sample_jobs", f"serve sample_jobs --port {port}"),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
    ):
        assert shown in recipe
        recipe = recipe.replace(shown, used)
    ended = await run("bash", "-c", recipe, folder=ROOT)
    (output,) = re.findall(r"they print:\n\n```\n(.*?)```", README, re.DOTALL)
    assert ended.stdout.decode() == output, ended


def _by_shell(job: Path) -> None:
    recipe = _recipe(JOB_DIRECTORY, "sh", "mktemp").replace("/srv/farm/jobs/opening-title-0042", str(job))
    subprocess.run(["sh", "-eu", "-c", recipe], check=True)


def _by_python(job: Path) -> None:
    names: dict[str, Callable[[str, object], None]] = {}
    exec(_recipe(JOB_DIRECTORY, "python", "write_status"), names)  # noqa: S102 - our own page
    names["write_status"](str(job), {"status": "rendering", "owner": "acme", "progress": 42})


@pytest.mark.parametrize("recipe", [_by_shell, _by_python])
def test_recipe_for_farms_writes_a_valid_record_and_nothing_else(
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


PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "sample_jobs/*.md")
    for path in ROOT.glob(pattern)
)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_resolve(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", page.read_text("utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path), f"{target}#{anchor}"


JOB = "opening-title-0042"


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Serve the job that docs/api.md names, with its token in the variable that it names."""
    make_job(JOB, output=b"film", log=b"one\n\nthree\nfour: {}\n")
    make_job("another", status="rendering")
    for number in range(3):
        make_job(f"failed-{number}", status="failed", error="no licence")
    service = await serve()
    assert service.token is not None
    monkeypatch.setenv("JOBSVC_TOKEN", service.token)
    return service


async def _pasted(service: Service, containing: str, folder: Path, *, lines: str = ".") -> tuple[int, str]:
    """Paste a recipe's assignments and matching lines into a shell; return exit code and output."""
    recipe = _recipe(API, "sh", containing).replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")
    chosen = [line for line in recipe.splitlines() if re.match(r"\w+=\S+", line) or re.search(lines, line)]
    ended = await run("bash", "-o", "pipefail", "-c", "\n".join(chosen), folder=folder)
    return ended.exit_code, ended.stdout.decode()


@needs("curl")
async def test_download_command_fetches_the_output_and_can_be_repeated(
    service: Service, tmp_path: Path
) -> None:
    code, output = await _pasted(service, "-C - -o title.mp4", tmp_path)
    assert code == 0
    assert orjson.loads(output)["id"] == JOB
    assert (tmp_path / "title.mp4").read_bytes() == b"film"
    await _pasted(service, "-C - -o title.mp4", tmp_path)
    assert (tmp_path / "title.mp4").read_bytes() == b"film"


@needs("curl")
async def test_download_command_writes_no_error_document(
    service: Service, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(JOB, status="queued")
    code, _ = await _pasted(service, "-C - -o title.mp4", tmp_path, lines="title.mp4")
    assert code == 22
    make_job(JOB, output=b"film")
    assert (await service.get(f"/api/jobs/{JOB}", ("Cache-Control", "no-cache"))).json()["done"]
    code, _ = await _pasted(service, "-C - -o title.mp4", tmp_path, lines="title.mp4")
    assert code == 0
    assert (tmp_path / "title.mp4").read_bytes() == b"film"


@needs("curl", "sed")
async def test_command_that_follows_a_log_prints_only_its_lines(service: Service, tmp_path: Path) -> None:
    code, output = await _pasted(service, "follow=1", tmp_path, lines="follow=1")
    assert (code, output) == (0, "one\n\nthree\nfour: {}\n")


@needs("curl", "sed")
async def test_command_that_follows_a_log_prints_an_unfinished_last_line(
    service: Service, make_job: MakeJob, tmp_path: Path
) -> None:
    make_job(JOB, output=b"film", log=b"one\nRendering 40%\rRendering 100%")
    code, output = await _pasted(service, "follow=1", tmp_path, lines="follow=1")
    assert (code, output) == (0, "one\nRendering 40%\nRendering 100%\n")


@needs("curl")
async def test_command_that_waits_prints_a_new_state_immediately(service: Service, tmp_path: Path) -> None:
    code, output = await _pasted(service, "follow=1", tmp_path, lines=r"\?wait=")
    assert (code, orjson.loads(output)["done"]) == (0, True)


@needs("curl")
async def test_command_that_follows_a_job_ends_with_its_final_state(service: Service, tmp_path: Path) -> None:
    code, output = await _pasted(service, "follow=1", tmp_path, lines=r"\$job/events")
    assert code == 0
    assert '"done":true' in output


@needs("curl", "timeout")
async def test_command_that_follows_all_jobs_prints_unfinished_ones(
    service: Service, make_job: MakeJob, tmp_path: Path
) -> None:
    recipe = _recipe(API, "sh", "follow=1").replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")
    assignments, *lines = recipe.splitlines()
    (line,) = [line for line in lines if "status=queued" in line]
    command = line.partition("#")[0]
    ended = await run("bash", "-c", f"{assignments}\n{command} | sed '/^event: present/q'")
    assert ended.exit_code == 0
    assert '"id":"another"' in ended.stdout.decode()
    assert JOB not in ended.stdout.decode()


@needs("curl", "jq")
async def test_list_recipe_prints_every_failed_job(
    service: Service, make_job: MakeJob, tmp_path: Path
) -> None:
    async with asyncio.timeout(20):
        while (await service.get("/readyz")).status != 200:
            await pause()
    code, output = await _pasted(service, "nextCursor", tmp_path)
    assert code == 0
    assert sorted(output.splitlines()) == [f"failed-{number}\tno licence" for number in range(3)]


@needs("curl", "jq", "sha256sum", "aria2c")
async def test_digest_recipe_downloads_and_verifies(
    service: Service, tmp_path: Path, treat_new_files_as_stable: None
) -> None:
    (tmp_path / "title.mp4").write_bytes(b"film")
    code, output = await _pasted(service, "Want-Repr-Digest", tmp_path)
    assert code == 0, output
    assert "title.mp4: OK" in output
    assert (tmp_path / "title.mp4").read_bytes() == b"film"


@needs("curl", "jq")
async def test_recipe_for_files_prints_where_each_one_is(service: Service, tmp_path: Path) -> None:
    code, output = await _pasted(service, "archive.tar", tmp_path, lines="limit=1000")
    assert code == 0
    *names, url = output.rstrip().split("\t")
    assert names == ["main", "film.mp4", "4"]
    assert (await service.get(url)).body == b"film"


@needs("curl", "sed", "tar", "wget", "aria2c")
@pytest.mark.parametrize("program", [r"\| tar x", "curl .* -o job.tar", "wget", "aria2c"])
async def test_recipe_for_archives_downloads_and_resumes(
    service: Service, tmp_path: Path, program: str
) -> None:
    whole = (await service.get(f"/api/jobs/{JOB}/archive.tar")).body
    if program != r"\| tar x":
        (tmp_path / "job.tar").write_bytes(whole[:700])
    code, output = await _pasted(service, "archive.tar", tmp_path, lines=f"^version=|{program}")
    assert code == 0, output
    if program != r"\| tar x":
        assert (tmp_path / "job.tar").read_bytes() == whole
        assert (await run("tar", "xf", "job.tar", folder=tmp_path)).exit_code == 0
    assert (tmp_path / "main" / "film.mp4").read_bytes() == b"film"


@needs("curl", "jq")
async def test_link_recipe_prints_a_url_that_needs_no_token(service: Service, tmp_path: Path) -> None:
    recipe = _recipe(API, "sh", "expiresIn").replace("127.0.0.1:8080", f"127.0.0.1:{service.port}")
    recipe = recipe.replace("ffplay", "curl -fsS")
    ended = await run("bash", "-c", recipe)
    assert (ended.exit_code, ended.stdout) == (0, b"film")


def test_demo_is_installed_without_development_tools(tmp_path: Path) -> None:
    plan = subprocess.run(
        ["make", "--dry-run", "demo", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "jobsvc demo" in plan
    assert re.search(r"pip install .*'\.(\[demo\])?'$", plan, re.MULTILINE)
    assert "[dev]" not in plan
