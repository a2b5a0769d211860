"""Define every option of the service once: name, type, default, check and help are one field of Settings.

The command line, environment variables and config file are derived from it; the README is tested against it.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, get_type_hints

from jobsvc.domain.job import SYNONYMS, Status
from jobsvc.domain.watch_mode import WatchMode
from jobsvc.settings import parsers
from jobsvc.settings.directories import default_state_dir
from jobsvc.settings.option import Option, Spec
from jobsvc.storage.layout import OutputRoot

STALLED_AFTER_S: Final = 900.0
"""Default of --stalled-after, which `jobsvc check` has too."""
_PATHS: Final = ":"
_LIST: Final = r"[\s,]+"


def _aliases(pairs: list[tuple[str, Status]]) -> Mapping[str, Status]:
    """Combine the built-in synonyms with the operator's; the last meaning of a word takes precedence."""
    return MappingProxyType({**SYNONYMS, **dict(pairs)})


def _watch_mode(text: str) -> WatchMode:
    try:
        return WatchMode(text)
    except ValueError:
        raise ValueError(f"is not one of {', '.join(WatchMode)}") from None


@dataclass(frozen=True, slots=True)
class Settings:
    """Checked settings of the service. Times are in seconds, sizes in bytes."""

    jobs_root: Annotated[
        Path,
        Spec(
            parsers.path,
            "JOBS_ROOT",
            "Directory that contains the job directories; only read.",
            argument=True,
        ),
    ]
    host: Annotated[str, Spec(parsers.host, "NAME", "Host name or address to listen on.")] = "127.0.0.1"
    port: Annotated[
        int, Spec(parsers.integer(0, 65_535), "NUMBER", "Port to listen on; 0 for any free port.")
    ] = 8080
    state_dir: Annotated[
        Path,
        Spec(
            parsers.path,
            "DIR",
            "Directory of tokens, link key, download log and digests; created if missing.",
            shown="$XDG_STATE_HOME/jobsvc or ~/.local/state/jobsvc",
        ),
    ] = field(default_factory=default_state_dir)
    secrets_dir: Annotated[
        Path | None,
        Spec(
            parsers.path,
            "DIR",
            "Directory of tokens and link key that several instances share; only read.",
            shown="",
        ),
    ] = None
    output_roots: Annotated[
        tuple[Path | OutputRoot, ...],
        Spec(
            parsers.output_root,
            "[OWNER=]DIR",
            "Directory whose files jobs (of this owner) can use by absolute path; repeatable.",
            splits=_PATHS,
        ),
    ] = ()
    status_aliases: Annotated[
        Mapping[str, Status],
        Spec(
            parsers.alias,
            "WORD=STATUS",
            "Status word of the farm and its meaning, such as paused=queued; repeatable.",
            splits=_LIST,
            joined=_aliases,
            shown="",
        ),
    ] = field(default_factory=lambda: SYNONYMS)
    watch: Annotated[
        WatchMode,
        Spec(
            _watch_mode,
            "auto|events|poll",
            "How changes are detected: by inotify, by polling, or depending on the storage.",
        ),
    ] = WatchMode.AUTO
    poll_interval: Annotated[
        float, Spec(parsers.seconds(0.05), "SECONDS", "Time between two checks of unfinished jobs.")
    ] = 1.0
    max_age: Annotated[
        float,
        Spec(
            parsers.seconds(0),
            "SECONDS",
            "Maximum age of a status while storage responds; 0 reads for each request.",
        ),
    ] = 1.0
    stalled_after: Annotated[
        float,
        Spec(
            parsers.seconds(0),
            "SECONDS",
            "Time without a new record after which an unfinished job is stalled; 0 is never.",
        ),
    ] = STALLED_AFTER_S
    limit_status: Annotated[str, Spec(parsers.rate, "RATE", "Status requests per token.")] = "600/minute"
    limit_list: Annotated[str, Spec(parsers.rate, "RATE", "List requests per token.")] = "120/minute"
    limit_events: Annotated[str, Spec(parsers.rate, "RATE", "Streams of all jobs that a token can open.")] = (
        "60/minute"
    )
    limit_logs: Annotated[str, Spec(parsers.rate, "RATE", "Log requests per token.")] = "120/minute"
    limit_download: Annotated[str, Spec(parsers.rate, "RATE", "Download requests per token.")] = "60/minute"
    limit_files: Annotated[
        str,
        Spec(parsers.rate, "RATE", "Requests per token for lists of files and single files."),
    ] = "1200/minute"
    limit_auth_failures: Annotated[
        str, Spec(parsers.rate, "RATE", "Invalid tokens and links per client address.")
    ] = "20/minute"
    max_downloads: Annotated[
        int, Spec(parsers.integer(1, 1_000_000), "NUMBER", "Concurrent downloads in total.")
    ] = 256
    max_downloads_per_token: Annotated[
        int, Spec(parsers.integer(1, 1_000_000), "NUMBER", "Concurrent downloads per token.")
    ] = 16
    max_streams: Annotated[
        int,
        Spec(
            parsers.integer(1, 1_000_000),
            "NUMBER",
            "Concurrent event streams, followed logs and long polls in total.",
        ),
    ] = 4096
    max_streams_per_token: Annotated[
        int,
        Spec(
            parsers.integer(1, 1_000_000),
            "NUMBER",
            "Concurrent event streams, followed logs and long polls per token.",
        ),
    ] = 64
    max_connections: Annotated[
        int,
        Spec(
            parsers.integer(0, 1_000_000),
            "NUMBER",
            "Maximum open connections; 0 for what the descriptor limit allows, at most 16384.",
        ),
    ] = 0
    shared_state: Annotated[
        str,
        Spec(
            parsers.redis_url,
            "URL",
            "Redis in which all instances count together: redis://HOST:PORT/DB, or rediss:// with TLS.",
            is_secret=True,
        ),
    ] = ""
    shared_state_prefix: Annotated[
        str, Spec(parsers.key_prefix, "TEXT", "Beginning of all keys in Redis.")
    ] = "jobsvc"
    instance: Annotated[
        str,
        Spec(
            parsers.instance,
            "NAME",
            "Name of this process in log lines, metrics and Redis.",
            shown="host name and port",
        ),
    ] = ""
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        Spec(
            parsers.network,
            "CIDR",
            "Address or network of a proxy whose X-Forwarded headers are trusted; repeatable.",
            splits=_LIST,
        ),
    ] = ()
    public_url: Annotated[
        str,
        Spec(
            parsers.public_url,
            "URL",
            "URL of the service as clients see it, for links and downloadUrl.",
        ),
    ] = ""
    cors_origins: Annotated[
        tuple[str, ...],
        Spec(
            parsers.cors_origin,
            "ORIGIN",
            "Origin whose pages can use the API, such as https://portal.example.com; repeatable.",
            splits=_LIST,
        ),
    ] = ()
    max_link_age: Annotated[
        int, Spec(parsers.integer(1, parsers.YEAR_S), "SECONDS", "Maximum lifetime of a download link.")
    ] = 86_400
    no_ui: Annotated[bool, Spec(parsers.switch, "", "Do not serve the web page.", shown="")] = False
    header_timeout: Annotated[
        float, Spec(parsers.seconds(1), "SECONDS", "Time in which a client must send a request head.")
    ] = 15.0
    send_timeout: Annotated[
        float,
        Spec(parsers.seconds(1), "SECONDS", "A client that accepts no data for this long is disconnected."),
    ] = 60.0
    download_rate: Annotated[
        int,
        Spec(
            parsers.byte_rate,
            "BYTES_PER_SECOND",
            "Maximum rate of one download, such as 500k, 10M or 10Mi; 0 is unlimited.",
        ),
    ] = 0
    shutdown_grace: Annotated[
        float, Spec(parsers.seconds(0), "SECONDS", "Time that downloads have to finish after SIGTERM.")
    ] = 30.0
    config: Annotated[
        Path | None, Spec(parsers.path, "FILE.toml", "TOML file that has these options as keys.", shown="")
    ] = None

    @property
    def secrets_folder(self) -> Path:
        """The directory of tokens and link key: `secrets_dir` if there is one, else `state_dir`."""
        return self.secrets_dir or self.state_dir

    def instance_name(self, port: str = "") -> str:
        """Return the name of this process: `instance`, or the host name and the port on which it listens."""
        return self.instance or f"{socket.gethostname()}:{port or self.port}"


_SINGULAR: Final = {
    "output_roots": "output-root",
    "status_aliases": "status-alias",
    "trusted_proxies": "trusted-proxy",
    "cors_origins": "cors-origin",
}
"""Option names of repeatable options: singular, while the setting's name is plural."""


def _default(of: Field[Any], spec: Spec) -> str:
    if spec.shown is not None or of.default is MISSING or of.default == ():
        return spec.shown or ""
    return f"{of.default:g}" if isinstance(of.default, float) else str(of.default)


def _options() -> tuple[Option, ...]:
    annotations = get_type_hints(Settings, include_extras=True)
    table = []
    for of in fields(Settings):
        spec = annotations[of.name].__metadata__[0]
        name = _SINGULAR.get(of.name, of.name.replace("_", "-"))
        table.append(Option(of.name, name, _default(of, spec), spec))
    return tuple(table)


OPTIONS: Final = _options()
