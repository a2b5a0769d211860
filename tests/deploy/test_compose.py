"""deploy/compose: what podman-compose makes of it, and its services as processes of this host."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import aiohttp
import pytest
import yaml

from tests.conftest import job_maker
from tests.deploy.container_processes import ContainerProcess, image_entrypoint, image_environment
from tests.deploy.reverse_proxies import FILES
from tests.eventually import pause, until_equal, wait_until
from tests.programs.external_programs import needs, without_coverage
from tests.programs.ports import free_port
from tests.programs.service_runner import PROJECT, Service

FOLDER: Final = PROJECT / "deploy" / "compose"
REPLICAS: Final = ("replica-1", "replica-2")
FILM: Final = b"a film" * 1000
COUNTED: Final = 'jobsvc_requests_total{code="200",method="GET",route="/api/jobs/{id}"}'
START_TIMEOUT_S: Final = 40.0
LIST_BUDGET: Final = 50
ROOT_CERTIFICATE: Final = "caddy/caddy/pki/authorities/local/root.crt"
"""Caddy writes it when it starts."""
CADDY_OPTIONS: Final = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the services as podman-compose understands them, with the variables of the file's comment."""
    podman = tmp_path_factory.mktemp("podman") / "podman"
    podman.write_text("#!/bin/sh\necho podman version 4.9.3\n")  # `config` asks for nothing else
    podman.chmod(0o755)
    command = (
        sys.executable,
        "-m",
        "podman_compose",
        "--podman-path",
        podman,
        "--profile",
        "admin",
        "config",
    )
    done = subprocess.run(
        list(map(str, command)),
        cwd=FOLDER,
        env={**without_coverage(), "SITE": "render.example.com", "JOBS_ROOT": "/srv/farm/jobs"},
        capture_output=True,
        text=True,
        check=True,
    )
    described: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)
    return described["services"]


def test_every_container_is_restricted(services: dict[str, Any]) -> None:
    assert services.keys() == {*REPLICAS, "admin", "redis", "caddy"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else []), name
        assert (service.get("user") == "65532:65532") != (name == "caddy"), name


def test_replicas_share_jobs_and_secrets_and_nothing_else(services: dict[str, Any]) -> None:
    mounts = {name: services[name]["volumes"] for name in REPLICAS}
    shared = set(mounts["replica-1"]) & set(mounts["replica-2"])
    assert shared == {"/srv/farm/jobs:/jobs:ro", "./secrets:/secrets:ro"}
    assert [set(mounts[name]) - shared for name in REPLICAS] == [
        {"state-1:/var/lib/jobsvc"},
        {"state-2:/var/lib/jobsvc"},
    ]
    assert [services[name]["command"][-1] for name in REPLICAS] == list(REPLICAS)


def test_containers_have_more_time_to_stop_than_downloads(services: dict[str, Any]) -> None:
    for name in REPLICAS:
        stop = float(services[name]["stop_grace_period"].removesuffix("s"))
        assert stop > float(services[name]["environment"]["JOBSVC_SHUTDOWN_GRACE"]) + 5


def test_caddy_is_configured_as_on_one_host() -> None:
    """Only the addresses, the certificate and the log's file differ."""
    text = FILES["Caddy"].read_text("utf-8")
    text = text.replace("127.0.0.1:8081 127.0.0.1:8082", "replica-1:8080 replica-2:8080")
    text = re.sub(r"\t# Without this line .*\n\ttls .*\n\n", "", text)
    text = re.sub(r"output file \S+", "output stderr", text).replace("\nrender.example.com {", "\n{$SITE} {")
    own = (FOLDER / "Caddyfile").read_text("utf-8")
    assert own.partition("\n{\n")[2] == text.partition("\n{\n")[2]


class Topology:
    """All services as processes of this host, on ports of the loopback address."""

    def __init__(self, services: dict[str, Any], folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in (*REPLICAS, "redis", "caddy")}
        self._services = services
        self.token = ""
        (folder / "redis").mkdir()

    def create_secrets(self) -> None:
        """Create the password, the link key and a token, as the comment of the compose file says."""
        (self.folder / "secrets").mkdir(mode=0o700)
        password = self.folder / "secrets" / "shared-state-password"
        password.write_text(f"{token_hex(32)}\n")
        password.chmod(0o400)
        admin = self.process("admin")
        assert admin.run("jobsvc", "secrets", "create")[0] == 0
        exit_code, said = admin.run("jobsvc", "token", "create", "--owner", "anna")
        assert exit_code == 0, said
        self.token = next(word for word in said.split() if word.startswith("jsvc_"))

    def process(self, name: str, **variables: str) -> ContainerProcess:
        """Return a service with the variables of its image and, for a replica, its port on this host."""
        service = self._services[name]
        command, environment = service["command"], service.get("environment", {})
        if name not in {"redis", "caddy"}:
            command, environment = [*image_entrypoint(), *command], {**image_environment(), **environment}
        own = {"JOBSVC_PORT": str(self.ports[name])} if name in REPLICAS else {}
        output = self.folder / f"{name}.out"
        return ContainerProcess(command, environment, self._replaced(name), output, {**own, **variables})

    def healthcheck(self, name: str) -> tuple[int, str]:
        kind, *words = self._services[name]["healthcheck"]["test"]
        return self.process(name).run(*(("sh", "-c", *words) if kind == "CMD-SHELL" else words))

    def _replaced(self, name: str) -> dict[str, object]:
        return {
            "/srv/farm/jobs": self.folder / "jobs",
            "/jobs": self.folder / "jobs",
            "/secrets": self.folder / "secrets",
            "/var/lib/jobsvc": self.folder / f"state-{name}",
            "/tmp": self.folder / "redis",  # noqa: S108 - a path in the container
            "6379": self.ports["redis"],
            "redis:6379": f"127.0.0.1:{self.ports['redis']}",
            "172.31.255.2": "127.0.0.1",
            "/etc/caddy/Caddyfile": self.folder / "Caddyfile",
        }

    def write_caddyfile(self) -> None:
        text = (FOLDER / "Caddyfile").read_text("utf-8").replace("{\n", CADDY_OPTIONS, 1)
        for name in REPLICAS:
            text = text.replace(f"{name}:8080", f"127.0.0.1:{self.ports[name]}")
        (self.folder / "Caddyfile").write_text(text, "utf-8")


@pytest.fixture
def topology(services: dict[str, Any], tmp_path: Path) -> Iterator[Topology]:
    (tmp_path / "jobs").mkdir()
    job_maker(tmp_path / "jobs")(output=FILM)
    made = Topology(services, tmp_path)
    made.write_caddyfile()
    site = {"SITE": f"https://localhost:{made.ports['caddy']}", "XDG_DATA_HOME": str(tmp_path / "caddy")}
    with ExitStack() as running:
        made.create_secrets()
        running.enter_context(made.process("redis").running())
        wait_until(lambda: made.healthcheck("redis")[0] == 0)
        for name in REPLICAS:
            replica = made.process(name, JOBSVC_LIMIT_LIST=f"{LIST_BUDGET}/minute")
            running.enter_context(replica.running())
            wait_until(partial(_is_serving, replica.output), START_TIMEOUT_S)
        running.enter_context(made.process("caddy", **site).running())
        wait_until(partial(_is_written, tmp_path / ROOT_CERTIFICATE), START_TIMEOUT_S)
        yield made


@needs("redis-server", "redis-cli", "caddy")
async def test_replicas_serve_through_caddy_and_share_redis(topology: Topology) -> None:
    url = f"https://localhost:{topology.ports['caddy']}/api/jobs/job-1"
    services = [Service(topology.ports[name], topology.folder / f"state-{name}", None) for name in REPLICAS]
    async with _session(topology) as session:
        await _wait_until_all_answered(session, url, services)
        async with session.get(f"{url}/download") as response:
            assert await response.read() == FILM
        async with session.post(f"{url}/download-links") as response:
            assert (await response.json())["url"].startswith(url)  # Caddy is a trusted proxy
        async with session.get(url.removesuffix("api/jobs/job-1")) as response:
            assert response.content_type == "text/html"
    for name in REPLICAS:
        assert topology.healthcheck(name)[0] == 0
    admitted = 0
    for service in services * LIST_BUDGET:
        admitted += (await service.get("/api/jobs", token=topology.token)).status == 200
    assert 0.9 * LIST_BUDGET <= admitted <= 1.1 * LIST_BUDGET  # one budget, not one for each
    for service in services:
        await until_equal(partial(service.metric, "jobsvc_shared_state_up"), 1)
        assert await service.answer_count(500) == 0


def _is_serving(output: Path) -> bool:
    return b'"serving"' in output.read_bytes()


def _is_written(certificate: Path) -> bool:
    return certificate.exists() and certificate.read_bytes().endswith(b"-----END CERTIFICATE-----\n")


def _session(topology: Topology) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=topology.folder / ROOT_CERTIFICATE)
    connector = aiohttp.TCPConnector(ssl=context)
    return aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {topology.token}"})


async def _wait_until_all_answered(session: aiohttp.ClientSession, url: str, services: list[Service]) -> None:
    """Request a status until each replica has answered, once Caddy knows that it is ready."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while not all([await service.metric(COUNTED) for service in services]):
            with suppress(aiohttp.ClientConnectionError):
                async with session.get(url) as response:
                    assert response.status in {200, 502, 503}
            await pause()
