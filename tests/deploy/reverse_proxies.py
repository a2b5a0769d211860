"""Real reverse proxies with the configurations of deploy/, on loopback, with TLS."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.eventually import wait_until
from tests.programs.certificates import create_certificate
from tests.programs.external_programs import SEARCH_PATH
from tests.programs.ports import accepts, free_port

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
START_TIMEOUT_S: Final = 20.0
REPLICA_PORTS: Final = (8081, 8082)
"""The ports in the configurations."""

PROGRAMS: Final = {"nginx": "nginx", "HAProxy": "haproxy", "Caddy": "caddy", "Apache": "apache2"}
FOLDER_VARIABLES: Final = ("HOME", "APACHE_LOG_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
"""Variables that name the folder of logs and other files of a proxy."""
FILES: Final = {
    "nginx": DEPLOY / "nginx" / "jobsvc.conf",
    "HAProxy": DEPLOY / "haproxy" / "haproxy.cfg",
    "Caddy": DEPLOY / "caddy" / "Caddyfile",
    "Apache": DEPLOY / "apache" / "jobsvc.conf",
}

_NGINX: Final = """\
daemon off; pid {folder}/nginx.pid; worker_processes 1; {user}
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {text}
}}
"""
_APACHE: Final = """\
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
Mutex file:{folder}
{modules}
Listen 127.0.0.1:{port}
{text}
"""
_APACHE_MODULES: Final = (
    *("mpm_event", "authz_core", "authz_host", "unixd", "log_config", "socache_shmcb", "slotmem_shm"),
    *("ssl", "proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests", "watchdog", "proxy_hcheck"),
    *("headers", "env", "setenvif", "http2"),
)
_CADDY_OPTIONS: Final = "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n"


@dataclass(frozen=True, slots=True)
class ReverseProxy:
    """A proxy that accepts connections."""

    name: str
    port: int
    tls: ssl.SSLContext
    """Trusts the proxy's certificate."""
    folder: Path
    """Has the proxy's logs."""


@contextmanager
def running(
    name: str, replica_ports: Sequence[int], folder: Path, *, sticky: bool = False
) -> Iterator[ReverseProxy]:
    """Run a proxy in front of ports of this host, at least two.

    `sticky`: with the lines that a comment proposes, so that each client gets one replica.
    """
    certificate = create_certificate(folder)
    port = free_port()
    configuration = write_configuration(name, port, replica_ports, folder, sticky=sticky)
    command = [*command_of(name, folder), str(configuration)]
    output_file = folder / "said"
    with output_file.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PATH": SEARCH_PATH, **dict.fromkeys(FOLDER_VARIABLES, str(folder))},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: accepts(port) or process.poll() is not None, START_TIMEOUT_S)
        assert process.poll() is None, output_file.read_text(errors="replace")
        yield ReverseProxy(name, port, ssl.create_default_context(cafile=certificate), folder)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def command_of(name: str, folder: Path) -> list[str]:
    """Return the command that runs a proxy; the path of its configuration comes after it."""
    return {
        "nginx": ["nginx", "-p", str(folder), "-c"],
        "HAProxy": ["haproxy", "-db", "-f"],
        "Caddy": ["caddy", "run", "--adapter", "caddyfile", "--config"],
        "Apache": ["apache2", "-DFOREGROUND", "-d", str(folder), "-f"],
    }[name]


def write_configuration(
    name: str, port: int, replica_ports: Sequence[int], folder: Path, *, sticky: bool = False
) -> Path:
    """Write the configuration of deploy/ with the test's ports and files, and what the system's own has."""
    text = FILES[name].read_text("utf-8")
    if sticky:
        text = _with_proposed_lines(text)
    text = _adapted(text, port, replica_ports, folder)
    is_root = os.geteuid() == 0
    if name == "nginx":
        text = _NGINX.format(folder=folder, text=text, user="user root;" if is_root else "")
    elif name == "HAProxy" and not is_root:
        text = re.sub(r"^    (user|group|chroot) .*\n", "", text, flags=re.MULTILINE)
    elif name == "Caddy":
        text = text.replace("{\n", _CADDY_OPTIONS, 1)
    elif name == "Apache":
        modules = "\n".join(
            f"LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so"
            for module in _APACHE_MODULES
            if Path(f"/usr/lib/apache2/modules/mod_{module}.so").exists()  # some are built in
        )
        text = _APACHE.format(folder=folder, port=port, text=text, modules=modules)
    file = folder / "proxy.conf"
    file.write_text(text, "utf-8")
    return file


def _with_proposed_lines(text: str) -> str:
    """Replace each line after a comment with indented lines by these."""
    proposed = re.compile(r"^(\s+)# .* instead of the next line:\n((?:\s+#   .*\n)+).*\n", re.MULTILINE)
    text, count = proposed.subn(lambda match: match[2].replace("#   ", ""), text)
    assert count == 1
    return text


def _adapted(text: str, port: int, replica_ports: Sequence[int], folder: Path) -> str:
    """Replace ports and files in a configuration by those of the test."""
    text = _with_more_replicas(text, replica_ports[len(REPLICA_PORTS) :])
    for documented, actual in zip(REPLICA_PORTS, replica_ports, strict=False):
        text, count = re.subn(rf":{documented}\b", f":{actual}", text)
        assert count
    text = re.sub(r"/[a-z/]+/render\.example\.com\.(pem|key)", rf"{folder}/\1", text)
    text = re.sub(r"/var/log/(nginx|caddy)/", f"{folder}/", text)
    for line in ("listen 443", "bind :443", "<VirtualHost *:443>"):
        text = text.replace(line, re.sub(r"(\*:|:)?443", f"127.0.0.1:{port}", line))
    # Caddy: the site's addresses have the port.
    site = ", ".join(f"https://{name}:{port}" for name in ("localhost", "127.0.0.1", "jobs.example")) + " {"
    return re.sub(r"^render\.example\.com \{", site, text, flags=re.MULTILINE)


def _with_more_replicas(text: str, ports: Sequence[int]) -> str:
    """Add replicas to a configuration as its reader would: more of what is there for the second one."""
    last = f"127.0.0.1:{REPLICA_PORTS[-1]}"
    if f"127.0.0.1:{REPLICA_PORTS[0]} {last}" in text:  # Caddy: all on one line
        return text.replace(last, " ".join([last, *(f"127.0.0.1:{port}" for port in ports)]))
    lines = []
    for line in text.splitlines():
        lines.append(line)
        if last in line:
            for port in ports:
                more = line.replace(last, f"127.0.0.1:{port}")
                lines.append(more.replace(" two ", f" replica-{port} "))  # HAProxy: servers have names
    return "\n".join([*lines, ""])
