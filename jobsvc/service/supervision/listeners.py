"""Listen on inherited sockets (sd_listen_fds(3)), or on the configured address.

The parent process, such as systemd, keeps inherited sockets open while the service restarts: connections wait
in their backlog, and none is refused.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Final

from aiohttp import web

FIRST_FD: Final = 3
"""SD_LISTEN_FDS_START."""
BACKLOG: Final = 4096
"""As systemd's Backlog=: listen(2) is called again for inherited sockets, and must not lower it."""
_COUNT: Final = re.compile("[0-9]{1,6}", re.ASCII)


class UnusableSocket(Exception):
    """An inherited descriptor is not a listening stream socket."""


def inherited_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the sockets that this process inherited, and remove the variables that announce them.

    Child processes inherit neither. Raises UnusableSocket.
    """
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    for name in ("LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        environment.pop(name, None)
    if pid != str(os.getpid()):
        return []
    if not _COUNT.fullmatch(count):
        raise UnusableSocket(f"LISTEN_FDS: {count[:20]!r} is not a number")
    return [_listening_socket(fd) for fd in range(FIRST_FD, FIRST_FD + int(count))]


def _listening_socket(fd: int) -> socket.socket:
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError as exc:
        raise UnusableSocket(f"descriptor {fd} of LISTEN_FDS is not open") from exc
    if not is_socket:
        raise UnusableSocket(f"descriptor {fd} of LISTEN_FDS is not a socket")
    inherited = socket.socket(fileno=fd)
    problem = _problem(inherited)
    if problem:
        inherited.detach()
        raise UnusableSocket(f"descriptor {fd} of LISTEN_FDS {problem}")
    inherited.set_inheritable(False)
    inherited.setblocking(False)  # noqa: FBT003 - the socket module's own API
    return inherited


def _problem(inherited: socket.socket) -> str | None:
    if inherited.type != socket.SOCK_STREAM:
        return "is not a stream socket; use ListenStream= in the socket unit"
    if inherited.family not in {socket.AF_INET, socket.AF_INET6, socket.AF_UNIX}:
        return "is neither a TCP nor a Unix socket"
    if not inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "is not listening; use Accept=no in the socket unit"
    return None


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of a host name, without listening. Blocking.

    Addresses that this machine does not have are left out. Raises OSError if it has none, and UnicodeError.
    """
    bound: list[socket.socket] = []
    unusable: OSError | None = None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        new = None
        try:
            new = socket.socket(family, kind, protocol)
            bound.append(_bound(new, address))
        except OSError as exc:
            if new is not None:
                new.close()
            if exc.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                close_all(bound)
                raise
            unusable = exc
    if not bound and unusable is not None:
        raise unusable
    return bound


def _bound(new: socket.socket, address: Any) -> socket.socket:  # noqa: ANN401 - as getaddrinfo returns it
    new.setblocking(False)  # noqa: FBT003 - the socket module's own API
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if new.family == socket.AF_INET6:
        new.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    new.bind(address)
    return new


async def listen(runner: web.BaseRunner, sockets: Sequence[socket.socket]) -> None:
    """Accept connections on these sockets."""
    for each in sockets:
        await web.SockSite(runner, each, backlog=BACKLOG).start()


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close sockets; those that are closed already are left alone."""
    for each in sockets:
        each.close()


def port_text(sockets: Sequence[socket.socket]) -> str:
    """Return what distinguishes instances on one host: the first TCP port, or the path of a Unix socket."""
    tcp = [each.getsockname()[1] for each in sockets if each.family != socket.AF_UNIX]
    text = str(tcp[0]) if tcp else address_text(sockets[0].getsockname())
    return re.sub(r"[^A-Za-z0-9._:@-]+", "-", text)


def address_text(address: object) -> str:
    """Format the result of getsockname(2): http://HOST:PORT, or unix:PATH."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    path = os.fsdecode(address) if isinstance(address, bytes) else str(address)
    return "unix:" + path.replace("\0", "@")
