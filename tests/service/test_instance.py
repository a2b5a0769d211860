from __future__ import annotations

import socket
from pathlib import Path

import orjson
import pytest

from jobsvc.service.supervision.listeners import bind, close_all, port_text
from jobsvc.settings import Settings
from jobsvc.storage.layout import instance_file
from tests.conftest import MakeJob, Serve, StartProcess
from tests.eventually import pause
from tests.programs.service_runner import stop_process

DOWNLOAD = "/api/jobs/job-1/download"


async def test_instance_is_in_log_lines_metrics_and_the_download_log(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    make_job(output=b"film")
    service = start_process("--instance", "render-1:a")
    assert (await service.get(DOWNLOAD)).body == b"film"
    assert await service.metric('jobsvc_instance_info{name="render-1:a"}') == 1
    stop_process(service.process)
    lines = [orjson.loads(line) for line in service.stderr_file.read_bytes().splitlines()]
    assert {line.get("instance") for line in lines} == {"render-1:a"}
    [line] = (service.state_dir / "downloads-render-1%3Aa.jsonl").read_bytes().splitlines()
    assert orjson.loads(line)["instance"] == "render-1:a"
    assert not (service.state_dir / "downloads.jsonl").exists()


async def test_name_by_default_is_the_host_and_the_port_that_is_used(
    start_process: StartProcess, make_job: MakeJob
) -> None:
    make_job(output=b"film")
    service = start_process()
    name = f"{socket.gethostname()}:{service.port}"
    assert service.lines("serving")[0]["instance"] == name
    await service.get(DOWNLOAD)
    [line] = await service.wait_for_downloads(1)
    assert line["instance"] == name
    assert await service.metric(f'jobsvc_instance_info{{name="{name}"}}') == 1


async def test_instances_with_names_can_share_a_state_directory(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=b"film")
    first, second = await serve(instance="a"), await serve(instance="b")
    for service in (first, second):
        assert (await service.get(DOWNLOAD, ("Want-Repr-Digest", "sha-256=1"))).status == 200
    for service in (first, second):
        while not await service.metric("jobsvc_digests_known"):
            await pause()
    names = {path.name for path in first.state_dir.iterdir()}
    for name in ("downloads-a.jsonl", "downloads-b.jsonl", "digests-a.jsonl", "digests-b.jsonl"):
        assert name in names


@pytest.mark.parametrize(
    ("instance", "name"),
    [("", "digests.jsonl"), ("a@b.c-d_e", "digests-a@b.c-d_e.jsonl"), ("h:80", "digests-h%3A80.jsonl")],
)
def test_file_of_an_instance_has_its_name(instance: str, name: str) -> None:
    assert instance_file("digests.jsonl", instance) == name


def test_unix_socket_distinguishes_instances_by_its_path() -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0jobsvc/x y")
        assert port_text([unix]) == "unix:@jobsvc-x-y"


def test_each_address_of_a_host_name_is_bound() -> None:
    sockets = bind("localhost", 0)
    assert {each.family for each in sockets} <= {socket.AF_INET, socket.AF_INET6}
    assert port_text(sockets) == str(sockets[0].getsockname()[1])
    close_all(sockets)


def test_given_name_takes_precedence() -> None:
    assert Settings(Path("/"), state_dir=Path("/"), instance="a").instance_name("1") == "a"
