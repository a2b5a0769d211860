"""Whose address a request comes from: the connection's, or the one that a trusted proxy forwarded.

aiohttp-remotes would trust a forwarded address from any peer, or want to know the number of proxies.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp import hdrs, web

Network = IPv4Network | IPv6Network

MAX_HOPS: Final = 32
"""Hops of a chain that are looked at, from its end; each may be a trusted proxy's."""


class Peers:
    """Knows the proxies whose word counts."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = tuple(trusted)

    def address_of(self, request: web.Request) -> str | None:
        """Walk X-Forwarded-For from its end for as long as the next hop is a trusted proxy's."""
        address = request.remote
        if not self._trusted or not self.trusts(address):
            return address
        lines = request.headers.getall(hdrs.X_FORWARDED_FOR, ())
        for hop in reversed(",".join(lines).rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            if _parse(hop.strip()) is None:
                break  # what a proxy could not name, nobody vouches for: the last known hop it is
            address = hop.strip()
            if not self.trusts(address):
                break
        return address

    def trusts(self, address: str | None) -> bool:
        """Whether an address is a trusted proxy's."""
        parsed = _parse(address or "")
        return parsed is not None and any(parsed in network for network in self._trusted)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address; an IPv4 one in IPv6 clothes (RFC 4291, section 2.5.5.2) is itself."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
