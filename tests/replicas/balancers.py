"""nginx, HAProxy and Caddy that distribute requests over several replicas and leave out dead ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.programs.proxies import running_proxy

_NGINX: Final = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream service {{
        {servers}
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_buffering off;
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_busy_buffers_size 128k;
            proxy_connect_timeout 2s;
            proxy_read_timeout 120s;
            proxy_next_upstream error timeout;
        }}
    }}
}}
"""
_HAPROXY: Final = """
global
    maxconn 8192
defaults
    mode http
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    option redispatch
    retries 3
    retry-on conn-failure empty-response
frontend public
    bind 127.0.0.1:{port} backlog 4096
    option forwardfor
    default_backend service
backend service
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 500ms fall 2 rise 1
    {servers}
"""
_CADDY: Final = """
{{
    admin off
    auto_https off
}}
:{port} {{
    bind 127.0.0.1
    reverse_proxy {servers} {{
        lb_policy round_robin
        lb_try_duration 3s
        lb_try_interval 100ms
        health_uri /readyz
        health_interval 500ms
        health_timeout 2s
        fail_duration 1s
        flush_interval -1
    }}
}}
"""
_TEMPLATES: Final = {"nginx": _NGINX, "haproxy": _HAPROXY, "caddy": _CADDY}
BALANCERS: Final = tuple(_TEMPLATES)
"""Programs that can run in front of replicas."""


def _servers(program: str, ports: Sequence[int]) -> str:
    if program == "nginx":
        return "\n".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=1s;" for port in ports)
    if program == "haproxy":
        return "\n    ".join(f"server s{port} 127.0.0.1:{port}" for port in ports)
    return " ".join(f"127.0.0.1:{port}" for port in ports)


@asynccontextmanager
async def balancer(program: str, folder: Path, port: int, replicas: Sequence[int]) -> AsyncIterator[None]:
    """Run a proxy on `port` in front of the ports of the replicas during a block."""
    text = _TEMPLATES[program].format(folder=folder, port=port, servers=_servers(program, replicas))
    async with running_proxy(program, folder, text, port):
        yield
