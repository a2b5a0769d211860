"""nginx, HAProxy and Caddy in front of a service, with shared persistent connections to it."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from tests.programs.external_programs import running_program
from tests.programs.ports import free_port

START_DEADLINE_S: Final = 15.0

_NGINX: Final = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream service {{ server 127.0.0.1:{upstream}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""
_HAPROXY: Final = """
global
    maxconn 512
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    http-reuse always
frontend public
    bind 127.0.0.1:{port}
    default_backend service
backend service
    server one 127.0.0.1:{upstream} pool-max-conn 1
"""
_CADDY: Final = """
{{
    admin off
    auto_https off
}}
:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{upstream} {{
        transport http {{
            keepalive_idle_conns_per_host 1
        }}
    }}
}}
"""


def _nginx(config: Path) -> tuple[object, ...]:
    return ("-p", config.parent, "-c", config)


def _haproxy(config: Path) -> tuple[object, ...]:
    return ("-db", "-f", config)


def _caddy(config: Path) -> tuple[object, ...]:
    return ("run", "--config", config, "--adapter", "caddyfile")


PROXIES: Final[dict[str, tuple[str, Callable[[Path], tuple[object, ...]]]]] = {
    "nginx": (_NGINX, _nginx),
    "haproxy": (_HAPROXY, _haproxy),
    "caddy": (_CADDY, _caddy),
}
"""By program: the template of its configuration, and its arguments."""


def installed(program: str) -> bool:
    """Return whether a proxy is on the PATH or in Debian's directories for administrators."""
    return _found(program) is not None


@asynccontextmanager
async def proxy(program: str, folder: Path, upstream: int) -> AsyncIterator[int]:
    """Run a proxy in front of the port `upstream` during a block, and yield its own port."""
    found = _found(program)
    assert found is not None, f"{program} is not installed"
    template, arguments = PROXIES[program]
    port = free_port()
    config = folder / f"{program}.conf"
    config.write_text(template.format(folder=folder, port=port, upstream=upstream))
    async with running_program(found, *arguments(config), folder=folder) as process:
        async with asyncio.timeout(START_DEADLINE_S):
            while not await _accepts(port):
                assert process.returncode is None, f"{program} ended with {process.returncode}"
                await asyncio.sleep(0.02)
        yield port


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


async def _accepts(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True
    return False
