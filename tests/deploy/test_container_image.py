"""The image of deploy/container, built and run for real."""

from __future__ import annotations

import os
import re
import signal
import tomllib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import MakeJob
from tests.deploy.container import Container, container
from tests.deploy.container_image import Image, build, can_build
from tests.deploy.container_processes import CONTAINERFILE
from tests.eventually import until
from tests.programs.ports import free_port
from tests.programs.service_runner import PROJECT, Service, logged

FILM: Final = b"\0film" * 50_000
USER: Final = 65532
COMMAND_TIMEOUT_S: Final = 60.0


class Runner:
    """Runs the image with one jobs root and one state directory, as an operator does."""

    def __init__(self, image: Image, jobs: Path, folder: Path) -> None:
        self.image = image
        self._jobs = jobs
        self._folder = folder
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        os.chown(self.state, USER, USER)
        self.port = free_port()

    def start(self, *words: str) -> AbstractContextManager[Container]:
        return container(
            self.image,
            list(words),
            jobs=self._jobs,
            state=self.state,
            output=self.output(*words),
            JOBSVC_PORT=str(self.port),
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Run a command to its end and return its exit code and output."""
        with self.start(*words) as process:
            return process.supervisor.wait(COMMAND_TIMEOUT_S), self.output(*words).read_text()

    def output(self, *words: str) -> Path:
        return self._folder / f"{words[1]}.out"


def test_context_of_the_build_has_all_that_is_copied_and_nothing_else() -> None:
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    copied = {name for line in lines for name in line.split()}
    exceptions = (PROJECT / ".containerignore").read_text("utf-8").split()
    assert copied == {line[1:] for line in exceptions if line.startswith("!")}
    hatch = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    assert copied >= hatch["targets"]["wheel"]["force-include"].keys()


@can_build()
@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_image_serves_jobs_without_privileges_on_a_read_only_root_file_system(
    tmp_path: Path, jobs_root: Path, make_job: MakeJob
) -> None:
    """One test, because the image takes most of a minute to build."""
    image = build(tmp_path)
    _check_metadata(image)
    make_job(output=FILM)
    runner = Runner(image, jobs_root, tmp_path)
    exit_code, said = runner.run(*image.config["Entrypoint"], "token", "create", "--owner", "anna")
    assert exit_code == 0, said
    token = next(word for word in said.split() if word.startswith("jsvc_"))

    kind, *healthcheck = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    words = (*image.config["Entrypoint"], *image.config["Cmd"])
    with runner.start(*words) as process:
        await until(lambda: logged(runner.output(*words), "serving"), COMMAND_TIMEOUT_S)
        assert not logged(runner.output(*words), "running-as-root")
        service = Service(runner.port, runner.state, token)
        assert (await service.get("/api/jobs/job-1")).status == 200
        assert (await service.download("job-1")).body == FILM
        _check_privileges(process.pid)
        assert runner.run(*healthcheck)[0] == 0
        os.kill(process.pid, signal.Signals[image.config["StopSignal"]])
        assert process.supervisor.wait(COMMAND_TIMEOUT_S) == 0
    assert runner.run(*healthcheck)[0] == 1
    assert len(service.downloads()) == 1


def _check_metadata(image: Image) -> None:
    config = image.config
    assert config["User"] == f"{USER}:{USER}"
    assert config["Labels"]["org.opencontainers.image.version"] == "1.2.3"
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert not config["Volumes"]
    # The first stage leaves nothing behind but the environment, with compiled modules.
    assert not (image.root / "src").exists()
    packages = next((image.root / "opt/jobsvc/lib").glob("python3.*/site-packages"))
    assert list((packages / "jobsvc/__pycache__").glob("*.pyc"))
    assert not list(packages.glob("pip*"))


def _check_privileges(pid: int) -> None:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["NSpid"][-1] == "1"
    assert status["Uid"] == status["Gid"] == [str(USER)] * 4
    assert not status["Groups"]
    assert int(status["CapEff"][0], 16) == 0
    assert status["NoNewPrivs"] == ["1"]
