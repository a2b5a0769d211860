"""URLs in responses lead to the output from every route, also behind a proxy that serves below a path."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote, urljoin

import pytest

from tests.clients.raw_http import connection, request
from tests.conftest import MakeJob, Serve
from tests.programs.external_programs import needs, run, running_program
from tests.programs.service_runner import Service

FILM = b"film" * 1000
JOB = "/api/jobs/job-1"
ROUTES = ("/api/jobs", JOB, f"{JOB}?wait=0", f"{JOB}/events", "/api/events", f"{JOB}/download-links")
LOOPBACK = (ip_network("127.0.0.1"),)
FORWARDED = (
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "render.example.com:8443"),
    ("X-Forwarded-Prefix", "/farm/"),
)


async def shown(service: Service, route: str, *fields: tuple[str, str]) -> str:
    """Return the first output URL that a route shows."""
    ends = time.monotonic() + 15
    while (await service.get("/readyz" if route[:4] == "/api" else "/farm/readyz")).status != 200:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)
    method = "POST" if route.endswith("links") else "GET"
    name = b'"url":"' if method == "POST" else b'"downloadUrl":"'
    async with service.connect() as link, asyncio.timeout(10):
        link.send(request(method, route, fields, token=service.token))
        await link.reader.readuntil(name)
        return (await link.reader.readuntil(b'"'))[:-1].decode()


@pytest.fixture
async def service(serve: Serve, make_job: MakeJob) -> Service:
    make_job(output=FILM)
    return await serve()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "field",
    [
        ("X-Forwarded-Prefix", "/render"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Via", "1.1 proxy"),
        ("Forwarded", "for=192.0.2.1"),
    ],
)
async def test_url_resolved_against_the_request_url_is_the_output(
    service: Service, route: str, field: tuple[str, str]
) -> None:
    url = await shown(service, route)
    assert url.startswith("/api/jobs/job-1/download")
    assert (await service.get(url)).body == FILM
    url = await shown(service, route, field)
    assert not url.startswith(("/", "http"))
    assert (await service.get(urljoin(route, url))).body == FILM
    below = urljoin(f"https://a.example/far/m{route}", url)
    assert below.startswith("https://a.example/far/m/api/jobs/job-1/download")


@pytest.mark.parametrize("route", ROUTES)
async def test_every_url_starts_with_the_public_url(serve: Serve, make_job: MakeJob, route: str) -> None:
    make_job(output=FILM)
    service = await serve(public_url="https://render.example.com/farm", trusted_proxies=LOOPBACK)
    url = await shown(service, route, ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "http"))
    prefix = "https://render.example.com/farm"
    assert url.startswith(f"{prefix}{JOB}/download")
    assert (await service.get(url.removeprefix(prefix))).body == FILM


async def test_trusted_proxy_makes_links_absolute(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service = await serve(trusted_proxies=LOOPBACK)
    links = f"{JOB}/download-links"
    url = await shown(service, links, *FORWARDED)
    assert url.startswith(f"https://render.example.com:8443/farm{JOB}/download/film.mp4?")
    assert (
        await service.get(url.removeprefix("https://render.example.com:8443/farm"), token=None)
    ).body == FILM
    assert (await shown(service, links)).startswith(JOB)
    for route in ROUTES[:-1]:
        assert "example" not in await shown(service, route, *FORWARDED)


async def test_forwarded_fields_of_an_untrusted_client_are_ignored(serve: Serve, make_job: MakeJob) -> None:
    make_job(output=FILM)
    service = await serve(trusted_proxies=(ip_network("192.0.2.1"),))
    for route in ROUTES:
        assert "example" not in await shown(service, route, *FORWARDED)


@pytest.mark.parametrize(
    "name", ["film.mp4", "a b;c.mp4", "50%.mp4", "%2e%2fx", "q?#&=.mp4", "it's (1)!.mp4"]
)
async def test_link_ends_in_the_file_name_and_opens_it(serve: Serve, make_job: MakeJob, name: str) -> None:
    make_job(output=FILM, outputPath=f"output/{name}")
    service = await serve()
    target = await service.link("job-1")
    segment = target.partition("?")[0].rpartition("/")[2]
    assert segment == quote(name, safe="!$&'()*+,;=:@")
    assert (await service.get(target, token=None)).body == FILM


NAMES = {
    'a "quoted" name.mp4': 'a "quoted" name.mp4',
    "back\\slash.mp4": "back\\slash.mp4",
    "Träume, 夜明け.mp4": "Träume, 夜明け.mp4",
    "e\u0301 nfd.mp4": "e\u0301 nfd.mp4",
    "\u00e9 nfc.mp4": "\u00e9 nfc.mp4",
    "🎬.mp4": "🎬.mp4",
    "new\nline\r\t.mp4": "new_line__.mp4",
    "del\x7f.mp4": "del_.mp4",
    ".hidden.mp4": ".hidden.mp4",
    "...": "...",
    "{[<|>]}^`.mp4": "{[<|>]}^`.mp4",
    "-o": "-o",
    "é" * 98 + ".mp4": "é" * 98 + ".mp4",
}


@pytest.mark.parametrize(("name", "saved"), NAMES.items(), ids=ascii)
async def test_link_opens_for_any_file_name(serve: Serve, make_job: MakeJob, name: str, saved: str) -> None:
    make_job(output=FILM, outputPath=f"output/{name}")
    service = await serve()
    target = await service.link("job-1")
    assert target.isascii()
    assert target.partition("?")[0].rpartition("/")[2] == quote(saved, safe="!$&'()*+,;=:@")
    answer = await service.get(target, token=None)
    assert (answer.status, answer.body) == (200, FILM)
    assert (await service.get(target)).status == 200
    assert (await service.get(f"{JOB}/download/{quote('other')}")).code == "not-found"


@needs("aria2c")
async def test_aria2c_saves_a_link_under_the_file_name(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    url = f"http://127.0.0.1:{service.port}{await service.link('job-1')}"
    ended = await run("aria2c", "--no-conf", "-q", url, folder=folder)
    assert ended.exit_code == 0, ended.stderr
    assert [path.name for path in folder.iterdir()] == ["film.mp4"]


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error crit; events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location /farm/ {{
      proxy_pass http://127.0.0.1:{upstream}/;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Prefix /farm;
    }}
  }}
}}
"""


@asynccontextmanager
async def nginx(folder: Path, upstream: int) -> AsyncIterator[int]:
    """Have nginx serve the upstream below `/farm/`; it decodes and re-encodes the path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    folder.mkdir()  # noqa: ASYNC240 - nothing else runs now
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    async with running_program("nginx", "-p", folder, "-c", config):
        async with asyncio.timeout(10):
            while True:
                try:
                    async with connection(port):
                        break
                except OSError:
                    await asyncio.sleep(0.02)
        yield port


@needs("nginx")
@pytest.mark.parametrize("trusted", [True, False])
async def test_every_url_leads_to_the_output_behind_nginx_below_a_path(
    serve: Serve, make_job: MakeJob, tmp_path: Path, *, trusted: bool
) -> None:
    name = "50% \"a' b;c?\\é夜{1}.mp4"
    make_job(output=FILM, outputPath=f"output/{name}")
    service = await serve(trusted_proxies=LOOPBACK if trusted else ())
    async with nginx(tmp_path / "nginx", service.port) as port:
        through = Service(port, service.state_dir, service.token)
        for route in ROUTES:
            request_url = f"http://jobs.example/farm{route}"
            url = urljoin(request_url, await shown(through, f"/farm{route}"))
            assert url.startswith("http://jobs.example/farm/api/jobs/job-1/download")
            target = url.removeprefix("http://jobs.example")
            token = None if route.endswith("links") else through.token
            answer = await through.get(target, token=token)
            assert (answer.status, answer.body) == (200, FILM), route
