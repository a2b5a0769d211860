"""Run the service until a signal: then stop accepting, let downloads finish within the grace period, exit."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog
from aiohttp import web

from jobsvc import __version__
from jobsvc.domain.errors import StorageUnavailable
from jobsvc.observe import logging_setup
from jobsvc.service.accept_errors import ACCEPT_ERRORS
from jobsvc.service.app_factory import build_app
from jobsvc.service.descriptors import descriptor_limit, open_standard_streams, raise_descriptor_limit
from jobsvc.service.gc_tuning import disable_automatic_full_collections, freeze_existing_objects
from jobsvc.service.lifespan import SHUTDOWN_TIMEOUT_S
from jobsvc.service.limits import LIMITS
from jobsvc.service.supervision.listeners import (
    UnusableSocket,
    address_text,
    bind,
    close_all,
    inherited_sockets,
    listen,
    port_text,
)
from jobsvc.service.supervision.reload import Reloader
from jobsvc.service.supervision.service_manager import ServiceManager
from jobsvc.settings import FAST_PATH_VARIABLE, Settings, unknown_variables
from jobsvc.shared_state.redis_url import BadOptions, BadPasswordFile, complete_url
from jobsvc.storage.files.os_errors import describe, is_temporary
from jobsvc.storage.state.link_key import BadLinkKey
from jobsvc.storage.state.revoked_links_file import BadRevokedLinks
from jobsvc.storage.state.token_file import BadTokenFile
from jobsvc.web.app.server import ServiceRunner
from jobsvc.web.auth.bearer import AUTHENTICATOR
from jobsvc.web.background_task import background_task
from jobsvc.web.connection.connection_limits import CONNECTION_LIMITS

log = structlog.get_logger("jobsvc.service")


class StartupError(Exception):
    """The service cannot start; the message contains the reason and the remedy."""

    def __init__(self, reason: str, *, may_pass: bool) -> None:
        super().__init__(reason)
        self.exit_code = 1 if may_pass else 2
        """1 for a temporary fault; 2 for a wrong configuration, which a restart does not fix.

        See systemd's RestartPreventExitStatus.
        """


async def serve(
    settings: Settings,
    *,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    on_indexed: Callable[[], None] | None = None,
    fast_path: bool = True,
    sockets: Sequence[socket.socket] = (),
    manager: ServiceManager | None = None,
    reread: Callable[[], Settings] | None = None,
) -> None:
    """Serve until `stop` is set, or until SIGTERM or SIGINT if it is not given.

    Then accept no more connections and let downloads finish within the grace period. `ready` is called with
    the address, `on_indexed` once the first index is complete. Without `fast_path`, each request gets a task;
    responses do not differ. Without `sockets`, new ones are bound to host and port. With `reread`,
    which reads the settings again, SIGHUP reloads them. Raises StartupError.
    """
    stop = stop or _event_of(signal.SIGTERM, signal.SIGINT)
    hangup = _event_of(signal.SIGHUP) if reread else asyncio.Event()
    manager = manager or ServiceManager({})
    configured, settings = settings, await asyncio.to_thread(_with_password, settings)
    sockets = sockets or await asyncio.to_thread(_bind, settings)
    try:
        app = build_app(settings, on_indexed, settings.instance_name(port_text(sockets)))
    except BadOptions as exc:
        raise StartupError(str(exc), may_pass=False) from exc
    runner = ServiceRunner(app, fast_path=fast_path, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(app[ACCEPT_ERRORS])
    try:
        await _start(runner)
        with _bind_errors(settings):
            await listen(runner, sockets)
        addresses = list(map(address_text, runner.addresses))
        log.info(
            "serving",
            address=addresses[0],
            addresses=addresses,
            jobs_root=str(settings.jobs_root),
            state_dir=str(settings.state_dir),
            version=__version__,
            max_connections=runner.app[CONNECTION_LIMITS].max_connections,
            descriptors=descriptor_limit(),
        )
        app[AUTHENTICATOR].log_count()
        if os.geteuid() == 0:
            log.warning("running-as-root", remedy="run the service as a dedicated user")
        if ready is not None:
            ready(addresses[0])
        manager.ready()
        reloader = Reloader(
            configured,
            reread or (lambda: configured),
            apply=app[LIMITS].apply,
            refresh_tokens=app[AUTHENTICATOR].file.refresh,
            manager=manager,
        )
        async with background_task(reloader.run(hangup), "jobsvc-reload"):
            await stop.wait()
        manager.stopping()
        log.info("stopping", grace=settings.shutdown_grace)
    finally:
        await runner.cleanup()
        close_all(sockets)
        loop.set_exception_handler(None)


def _with_password(settings: Settings) -> Settings:
    """Add the password of Redis from the secrets directory. Raises StartupError."""
    try:
        url = complete_url(settings.shared_state, settings.secrets_dir) if settings.shared_state else ""
    except BadPasswordFile as exc:
        raise StartupError(str(exc), may_pass=is_temporary(exc.__cause__)) from exc
    return replace(settings, shared_state=url)


async def _start(runner: web.BaseRunner) -> None:
    try:
        await runner.setup()
    except (BadTokenFile, BadLinkKey, BadRevokedLinks) as exc:
        raise StartupError(str(exc), may_pass=is_temporary(exc.__cause__)) from exc
    except StorageUnavailable as exc:
        raise StartupError(exc.detail, may_pass=True) from exc
    except OSError as exc:
        raise StartupError(describe(exc), may_pass=is_temporary(exc)) from exc


def _bind(settings: Settings) -> list[socket.socket]:
    with _bind_errors(settings):
        return bind(settings.host, settings.port)


@contextmanager
def _bind_errors(settings: Settings) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as exc:
        message = _bind_error(exc, settings.host, settings.port)
        raise StartupError(message, may_pass=is_temporary(exc)) from exc


def _bind_error(exc: Exception, host: str, port: int) -> str:
    """Return why the service cannot listen on the address, and the remedy."""
    if isinstance(exc, socket.gaierror):
        return f"host: the name {host!r} cannot be resolved: {exc.strerror}"
    if not isinstance(exc, OSError):
        return f"host: {host!r} is not a host name: {exc}"
    match exc.errno:
        case errno.EADDRINUSE:
            remedy = (
                f"`ss -ltnp 'sport = :{port}'` shows the program that uses it; stop it, or use another --port"
            )
            return f"port {port} of {host}: address already in use; {remedy}"
        case errno.EADDRNOTAVAIL:
            return f"host: {host} is not (yet) an address of this machine; `ip address` lists its addresses"
        case errno.EACCES:
            remedy = "use a --port of 1024 or above, or grant the service CAP_NET_BIND_SERVICE"
            return f"port {port} of {host}: permission denied; {remedy}"
        case _:
            return f"{host}, port {port}: {describe(exc)}"


def run(
    settings: Settings,
    ready: Callable[[str], None] | None = None,
    reread: Callable[[], Settings] | None = None,
) -> int:
    """Run the service until SIGTERM or SIGINT; return the exit code.

    SIGHUP reloads the settings with `reread`; on a terminal, it ends the service.
    """
    open_standard_streams()
    logging_setup.configure()
    for name, close in unknown_variables(os.environ):
        log.warning("unknown-variable", name=name, did_you_mean=close, effect="none")
    manager = ServiceManager(os.environ)
    raise_descriptor_limit()
    disable_automatic_full_collections()
    fast_path = os.environ.get(FAST_PATH_VARIABLE) != "off"
    if not fast_path:
        log.warning("fast-path-off", variable=FAST_PATH_VARIABLE)
    try:
        sockets = _inherited() or _bind(settings)
        logging_setup.configure(instance=settings.instance_name(port_text(sockets)))
        main = serve(
            settings,
            ready=ready,
            on_indexed=freeze_existing_objects,
            fast_path=fast_path,
            sockets=sockets,
            manager=manager,
            reread=None if os.isatty(0) else reread,
        )
        _run_loop(main)
    except StartupError as exc:
        log.error("not-started", reason=str(exc))  # noqa: TRY400 - no traceback: the reason is sufficient
        return exc.exit_code
    return 0


def _inherited() -> list[socket.socket]:
    try:
        sockets = inherited_sockets(os.environ)
    except UnusableSocket as exc:
        raise StartupError(str(exc), may_pass=False) from exc
    if sockets:
        log.info("inherited-sockets", sockets=len(sockets), effect="--host and --port are not used")
    return sockets


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop if it is installed, otherwise on asyncio's event loop."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _event_of(*signals: signal.Signals) -> asyncio.Event:
    """Return an event that these signals set."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, event.set)
    return event
