"""Real reverse proxies with the configurations of docs/deployment.md, on loopback, with TLS."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.eventually import wait_until
from tests.programs.certificates import create_certificate
from tests.programs.external_programs import SEARCH_PATH

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text("utf-8")
START_TIMEOUT_S: Final = 20.0

PROGRAMS: Final = {"nginx": "nginx", "HAProxy": "haproxy", "Caddy": "caddy", "Apache": "apache2"}
"""Program by the heading of its configuration."""

_NGINX: Final = """\
daemon off; pid {folder}/nginx.pid; worker_processes 1; {user}
error_log {folder}/error.log;
events {{ }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {blocks[1]}
    {blocks[0]}
}}
"""
_APACHE: Final = """\
ServerRoot {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
Mutex file:{folder}
{modules}
Listen 127.0.0.1:{port}
{blocks[0]}
"""
_APACHE_MODULES: Final = (
    *("mpm_event", "authz_core", "authz_host", "unixd", "log_config", "socache_shmcb"),
    *("ssl", "proxy", "proxy_http", "headers", "env", "setenvif"),
)


@dataclass(frozen=True, slots=True)
class ReverseProxy:
    """A proxy that accepts connections."""

    name: str
    port: int
    tls: ssl.SSLContext
    """Trusts the proxy's certificate."""
    folder: Path
    """Has the proxy's logs."""


def configuration(name: str) -> list[str]:
    """Return the code blocks below a heading of the document."""
    section = DOCUMENT.partition(f"\n### {name}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    blocks: list[str] = re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)
    assert blocks, f"no configuration of {name}"
    return blocks


@contextmanager
def running(name: str, backend_port: int, folder: Path) -> Iterator[ReverseProxy]:
    """Run a proxy in front of a port of this host."""
    certificate = create_certificate(folder)
    port = _free_port()
    command, variables = _prepare(name, port, backend_port, folder)
    output_file = folder / "said"
    with output_file.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PATH": SEARCH_PATH, "HOME": str(folder), **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: _accepts(port) or process.poll() is not None, START_TIMEOUT_S)
        assert process.poll() is None, output_file.read_text(errors="replace")
        yield ReverseProxy(name, port, ssl.create_default_context(cafile=certificate), folder)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _prepare(name: str, port: int, backend_port: int, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Write the configuration; return the command that runs it and its environment."""
    blocks = [_adapted(block, port, backend_port, folder) for block in configuration(name)]
    if name == "nginx":
        user = "user root;" if os.geteuid() == 0 else ""
        text = _NGINX.format(folder=folder, blocks=blocks, user=user)
        command = ["nginx", "-p", str(folder), "-c"]
    elif name == "Apache":
        modules = "\n".join(
            f"LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so"
            for module in _APACHE_MODULES
            if Path(f"/usr/lib/apache2/modules/mod_{module}.so").exists()  # some are built in
        )
        text = _APACHE.format(folder=folder, port=port, blocks=blocks, modules=modules)
        command = ["apache2", "-X", "-d", str(folder), "-f"]
    elif name == "HAProxy":
        text, command = blocks[0], ["haproxy", "-q", "-db", "-f"]
    else:
        text = f"{{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}}\n{blocks[0]}"
        command = ["caddy", "run", "--adapter", "caddyfile", "--config"]
    file = folder / "proxy.conf"
    file.write_text(text, "utf-8")
    return [*command, str(file)], dict.fromkeys(
        ("APACHE_LOG_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder)
    )


def _adapted(block: str, port: int, backend_port: int, folder: Path) -> str:
    """Replace ports and files in a configuration by those of the test."""
    block = re.sub(r"/[a-z/]+/render\.example\.com\.(pem|key)", rf"{folder}/\1", block)
    block = block.replace("/var/log/nginx/", f"{folder}/").replace(
        "127.0.0.1:8080", f"127.0.0.1:{backend_port}"
    )
    for line in ("listen 443", "bind :443", "<VirtualHost *:443>"):
        block = block.replace(line, re.sub(r"(\*:|:)?443", f"127.0.0.1:{port}", line))
    # Caddy: the site's address has the port.
    return re.sub(
        r"^render\.example\.com \{", f"https://localhost:{port}, https://127.0.0.1:{port} {{", block
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
