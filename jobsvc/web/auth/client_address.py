"""Determine a request's client address: the connection's peer, or the one that a trusted proxy forwarded.

aiohttp-remotes would trust a forwarded address from any peer, or need to know the number of proxies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp import hdrs, web

from jobsvc.web.connection.fast_request import FastRequest

Network = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
"""Elements of X-Forwarded-For that are examined, from its end; each can be a trusted proxy's."""
_PORT: Final = re.compile(r'"?(?:\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|(\d+\.\d+\.\d+\.\d+):\d{1,5})"?')
"""An address as some proxies forward it: with a port or brackets."""


class ClientAddresses:
    """Determines client addresses; trusts the addresses that certain proxies forward."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)
        self.trusts = lru_cache(maxsize=1024)(self._trusts)
        """Returns whether an address is a trusted proxy's."""

    def address_of(self, request: web.Request | FastRequest) -> str | None:
        """Return the client address: follow X-Forwarded-For from its end past trusted proxies.

        Ports are dropped. An element that is not an address, such as "unknown", ends the search, because
        nothing before it can be trusted.
        """
        address = request.remote
        if not self._trusted or not self.trusts(address):
            return address
        lines = request.headers.getall(hdrs.X_FORWARDED_FOR, ())
        for hop in reversed(",".join(lines).rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            forwarded = _address_in(hop.strip())
            if forwarded is None:
                break
            address = forwarded
            if not self.trusts(address):
                break
        return address

    def forwarded(self, request: web.Request, field: str) -> str:
        """Return the last value of a list field, which a trusted proxy has set; empty if none has."""
        if not self.trusts(request.remote):
            return ""
        return ",".join(request.headers.getall(field, ())).rpartition(",")[2].strip(" \t")

    def _trusts(self, address: str | None) -> bool:
        parsed = _parse(address or "")
        return parsed is not None and any(parsed in network for network in self._trusted)


@lru_cache(maxsize=1024)
def _address_in(hop: str) -> str | None:
    """Return the address in one element of X-Forwarded-For; None if it is not an address."""
    match = _PORT.fullmatch(hop)
    text = hop if match is None else match[1] or match[2]
    return None if _parse(text) is None else text


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address; None if it is invalid.

    An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) is returned as IPv4.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
