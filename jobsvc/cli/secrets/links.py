"""jobsvc link list|revoke: the links that services have created.

Exit codes: 0 success; 1 a fault that may be temporary, such as Redis away; 2 wrong use, or a file that cannot
be used.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple, TypeVar

import click

from jobsvc.cli.secrets.output import Value, write_list
from jobsvc.cli.secrets.places import Places, find_places, place_options
from jobsvc.cli.secrets.state_file_errors import state_file_errors
from jobsvc.cli.settings_options import TemporaryFault, file_error
from jobsvc.domain.access import Token
from jobsvc.settings.parsers import YEAR_S
from jobsvc.shared_state.connection import SharedStateUnavailable
from jobsvc.shared_state.link_exchange import LinkStore, use_links
from jobsvc.shared_state.redis_url import BadOptions, BadPasswordFile, complete_url, hide_password
from jobsvc.storage.layout import LINKS_FILE, REVOKED_LINKS_FILE, TOKENS_FILE
from jobsvc.storage.state import token_file
from jobsvc.storage.state.link_record import IssuedLink, parse_link_name
from jobsvc.storage.state.links_file import load_links
from jobsvc.storage.state.revoked_links_file import add_revoked, load_revoked
from jobsvc.storage.state.token_format import time_text

T = TypeVar("T")

MAX_NAME_LENGTH: Final = 16_384
"""Maximum number of characters of a URL on standard input."""
_COLUMNS: Final = {
    "ID": "id",
    "JOB": "job",
    "NAME": "name",
    "TOKEN": "tokenId",
    "OWNER": "owner",
    "CREATED": "created",
    "EXPIRES": "expires",
    "STATE": "state",
}


class _Links(NamedTuple):
    """What is known of links."""

    issued: list[IssuedLink]
    revoked: Mapping[str, float]


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per line.")
@place_options(shared_state=True)
@click.pass_context
def list_(ctx: click.Context, /, *, as_json: bool, **_: object) -> None:
    """List the links that services have created.

    For the operator of the services. With --shared-state the links of all instances, else those of the state
    directory. A link is written within seconds after its creation. The links themselves cannot be shown:
    their signatures are not kept.
    """
    places = find_places(ctx)
    links = _in_redis(places, _load_from_redis) if places.shared_state else _load_from_files(places)
    path = places.secrets / TOKENS_FILE
    with state_file_errors(path, shared=places.shared):
        tokens = {token.id: token for token in token_file.load_if_changed(path, shared=places.shared).tokens}
    now = time.time()
    rows = [_describe(link, links.revoked, tokens.get(link.token_id), now) for link in links.issued]
    write_list(rows, _COLUMNS, {}, as_json=as_json)


@click.command
@click.argument("name", metavar="ID|URL|-")
@place_options(shared_state=True)
@click.pass_context
def revoke(ctx: click.Context, /, name: str, **_: object) -> None:
    """Revoke a link, by its id or its URL.

    For the operator of the services. With - the id or URL is read from standard input, so that it is in no
    shell history and in no list of processes. Services refuse the link within two seconds, and end downloads
    by it. With --shared-state all instances do; else those that read this secrets directory, or this state
    directory without one.
    """
    places = find_places(ctx)
    # The argument might be a link, so it is not printed.
    link_id = parse_link_name(sys.stdin.readline(MAX_NAME_LENGTH).strip() if name == "-" else name)
    if link_id is None:
        raise click.UsageError(
            "This is neither the id of a link, which has 16 hexadecimal digits, nor its URL."
        )
    if places.shared_state:
        link = _in_redis(places, lambda store: _revoke_in_redis(store, link_id))
        where = hide_password(places.shared_state)
    else:
        link = _revoke_in_file(places, link_id)
        where = str(places.secrets / REVOKED_LINKS_FILE)
    named = f" to {link.name} of {link.job}" if link is not None else ""
    click.echo(f"Link {link_id}{named} is revoked in {where}.", err=True)
    if link is None:
        click.echo("No link with this id is on record here: check the id if you expected one.", err=True)


def _load_from_files(places: Places) -> _Links:
    path = places.secrets / REVOKED_LINKS_FILE
    with state_file_errors(path, shared=places.shared):
        revoked = load_revoked(path, shared=places.shared).links
    return _Links(_load_issued(places), revoked)


def _load_issued(places: Places) -> list[IssuedLink]:
    path = places.state_dir / LINKS_FILE
    with state_file_errors(path):
        try:
            return load_links(path)
        except ValueError as exc:
            raise file_error(f"{path}: {exc}", exc) from exc


def _revoke_in_file(places: Places, link_id: str) -> IssuedLink | None:
    """Revoke a link; return its record if there is one."""
    link = _find(_load_issued(places), link_id)
    path, now = places.secrets / REVOKED_LINKS_FILE, time.time()
    with state_file_errors(path, shared=places.shared):
        add_revoked(path, {link_id: _expiry(link, now)}, now, shared=places.shared)
    return link


async def _load_from_redis(store: LinkStore) -> _Links:
    return _Links(await store.issued(), await store.revoked())


async def _revoke_in_redis(store: LinkStore, link_id: str) -> IssuedLink | None:
    """Revoke a link; return its record if there is one."""
    link = _find(await store.issued(), link_id)
    await store.revoke({link_id: _expiry(link, time.time())})
    return link


def _in_redis(places: Places, work: Callable[[LinkStore], Awaitable[T]]) -> T:
    try:
        url = complete_url(places.shared_state, places.secrets_dir)
        return asyncio.run(use_links(url, places.shared_state_prefix, work))
    except (BadPasswordFile, BadOptions) as exc:
        raise file_error(str(exc), exc.__cause__) from exc
    except SharedStateUnavailable as exc:
        raise TemporaryFault(f"{hide_password(places.shared_state)}: {exc}") from exc


def _find(links: list[IssuedLink], link_id: str) -> IssuedLink | None:
    return next((link for link in links if link.id == link_id), None)


def _expiry(link: IssuedLink | None, now: float) -> float:
    """Return until when a link has to be refused; the one in a URL is not used, because it may be forged."""
    return now + YEAR_S if link is None else link.expires


def _describe(
    link: IssuedLink, revoked: Mapping[str, float], token: Token | None, now: float
) -> dict[str, Value]:
    return {
        "id": link.id,
        "job": link.job,
        "name": link.name,
        "tokenId": link.token_id,
        "owner": link.owner,
        "created": time_text(link.created),
        "expires": time_text(link.expires),
        "state": _state(link, revoked, token, now),
    }


def _state(link: IssuedLink, revoked: Mapping[str, float], token: Token | None, now: float) -> str:
    if link.id in revoked:
        return "revoked"
    if link.expires <= now:
        return "expired"
    return "live" if token is None or token.alive(now) else f"token-{token.state(now)}"
