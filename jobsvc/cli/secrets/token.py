"""jobsvc token create|rotate|list|revoke|prune: manage the tokens, which a running service reloads by itself.

Exit codes: 0 success; 1 no such token, or a fault that may be temporary (disk full); 2 wrong use, or a token
file or directory that cannot be used.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import click

from jobsvc.cli.secrets.output import Duration, Value, write_list
from jobsvc.cli.secrets.places import Places, find_places, place_options
from jobsvc.cli.secrets.state_file_errors import LABELS_REMEDY, state_file_errors
from jobsvc.domain.access import SCOPES, Token
from jobsvc.storage.layout import TOKEN_USE_FILE, TOKENS_FILE
from jobsvc.storage.state import token_file
from jobsvc.storage.state.token_format import check_name, time_text
from jobsvc.storage.state.token_use_file import load_use

_COLUMNS: Final = {
    "ID": "id",
    "OWNER": "owner",
    "SCOPES": "scopes",
    "CREATED": "created",
    "EXPIRES": "expires",
    "LAST-USED": "lastUsed",
    "STATE": "state",
    "LABEL": "label",
}
_NONE: Final = {"expires": "never", "lastUsed": "-", "label": ""}
_MAX_SECRET_LENGTH: Final = 512
"""Maximum number of characters of a token on standard input."""


@click.group
def token() -> None:
    """Manage access tokens.

    Tokens are kept in tokens.json of the state directory, or of the secrets directory if there is one, as
    SHA-256 digests. A running service reads it by itself: a change takes effect within two seconds. Use the
    directories of the service (--state-dir, --secrets-dir, their variables or --config), and run the command
    as the service's user or as root.
    """


@token.command
@click.option("--owner", required=True, help="Owner whose jobs the token can read.")
@click.option("--label", help="Description of the token in `jobsvc token list`.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=token_file.DEFAULT_SCOPES,
    show_default=True,
    help="Scope of the token; repeatable.",
)
@click.option(
    "--expires",
    "lifetime",
    type=Duration("never", None),
    default="never",
    show_default=True,
    help="Lifetime of the token, such as 90d, 12h or 30m.",
)
@place_options()
@click.pass_context
def create(
    ctx: click.Context,
    /,
    owner: str,
    label: str | None,
    scopes: tuple[str, ...],
    lifetime: float | None,
    **_: object,
) -> None:
    """Create a token and print it on standard output.

    The token is shown only once: only its digest is kept.
    """
    places = find_places(ctx)
    path = places.secrets / TOKENS_FILE
    expires = None if lifetime is None else time.time() + lifetime
    for name, value in (("--owner", owner), ("--label", label)):
        with _value_errors(name):
            if value is not None:
                check_name(value)
    with state_file_errors(path, shared=places.shared):
        secret, created = token_file.create(path, owner, scopes, expires, label, shared=places.shared)
    _show(secret, created, places)


@token.command
@click.argument("name", metavar="ID|TOKEN|-")
@click.option(
    "--expires",
    "lifetime",
    type=Duration("never", math.inf),
    help="Lifetime of the new token, such as 90d, or never.  [default: that of the old one]",
)
@click.option(
    "--overlap",
    type=Duration("0", 0),
    default="24h",
    show_default=True,
    help="Time for which the old token is still valid; with 0 it is revoked at once.",
)
@place_options()
@click.pass_context
def rotate(ctx: click.Context, /, name: str, lifetime: float | None, overlap: float, **_: object) -> None:
    """Replace a token by a new one with the same owner, scopes and label.

    The new token is printed on standard output, once. The old one, given by its id or by the token itself (-
    reads either from standard input), expires after the overlap, and with it the links that it created.
    """
    places, name = find_places(ctx), _read_name(name)
    path = places.secrets / TOKENS_FILE
    with state_file_errors(path, shared=places.shared):
        try:
            secret, new, old = token_file.rotate(path, name, lifetime, overlap, shared=places.shared)
        except token_file.UnknownToken as exc:
            _fail_unknown(path, exc)
        except token_file.EndedToken as exc:
            message = f"The token {exc}; create another one with `jobsvc token create`."
            raise click.ClickException(message) from exc
    _show(secret, new, places)
    end = "is revoked" if old.revoked is not None else f"is valid until {time_text(old.expires)}"
    click.echo(f"The old token {old.id} {end}.", err=True)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per line.")
@place_options()
@click.pass_context
def list_(ctx: click.Context, /, *, as_json: bool, **_: object) -> None:
    """List all tokens, including expired and revoked ones.

    The running service writes LAST-USED once a minute. The tokens themselves cannot be shown.
    """
    places = find_places(ctx)
    path, use_path = places.secrets / TOKENS_FILE, places.state_dir / TOKEN_USE_FILE
    with state_file_errors(path, shared=places.shared):
        tokens = token_file.load(path, shared=places.shared)
    with state_file_errors(use_path):
        used = load_use(use_path)
    now = time.time()
    rows = [_describe(each, used.get(each.id), now) for each in tokens]
    write_list(rows, _COLUMNS, _NONE, as_json=as_json)


@token.command
@click.argument("name", metavar="ID|TOKEN|-")
@place_options()
@click.pass_context
def revoke(ctx: click.Context, /, name: str, **_: object) -> None:
    """Revoke a token, by its id or by the token itself.

    With - the id or token is read from standard input, so that it is in no shell history and in no list of
    processes. A running service refuses the token within two seconds.
    """
    places, name = find_places(ctx), _read_name(name)
    path = places.secrets / TOKENS_FILE
    with state_file_errors(path, shared=places.shared):
        try:
            revoked = token_file.revoke(path, name, shared=places.shared)
        except token_file.UnknownToken as exc:
            _fail_unknown(path, exc)
        label_fault = token_file.load_if_changed(path, shared=places.shared).label_fault
    click.echo(f"Token {revoked.id} of {revoked.owner} is revoked in {path}.", err=True)
    if label_fault is not None:
        click.echo(f"Warning: {label_fault}{LABELS_REMEDY}", err=True)


@token.command
@place_options()
@click.pass_context
def prune(ctx: click.Context, /, **_: object) -> None:
    """Remove expired tokens, and print their ids."""
    places = find_places(ctx)
    path = places.secrets / TOKENS_FILE
    with state_file_errors(path, shared=places.shared):
        removed = token_file.prune(path, shared=places.shared)
    for each in removed:
        click.echo(each.id)
    click.echo(f"{len(removed)} expired token{'s' * (len(removed) != 1)} removed.", err=True)


@contextmanager
def _value_errors(option: str) -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint=option) from exc


def _read_name(name: str) -> str:
    """Return the id or token that the argument is, or the one on standard input."""
    return sys.stdin.readline(_MAX_SECRET_LENGTH).strip() if name == "-" else name


def _show(secret: str, created: Token, places: Places) -> None:
    """Print a new token on standard output, and what it is on standard error."""
    click.echo(secret)
    end = "until it is revoked" if created.expires is None else f"until {time_text(created.expires)}"
    click.echo(
        f"Token {created.id} of {created.owner}, valid {end}, is in {places.secrets / TOKENS_FILE}."
        " Keep it safe: it cannot be shown again.",
        err=True,
    )


def _fail_unknown(path: Path, exc: Exception) -> NoReturn:
    # The argument might be the token itself, so it is not printed.
    message = f"No token in {path} matches this id or token; `jobsvc token list` shows the ids."
    raise click.ClickException(message) from exc


def _describe(each: Token, used: float | None, now: float) -> dict[str, Value]:
    return {
        "id": each.id,
        "owner": each.owner,
        "label": each.label,
        "scopes": sorted(each.scopes),
        "created": time_text(each.created),
        "expires": time_text(each.expires),
        "revoked": time_text(each.revoked),
        "lastUsed": time_text(used),
        "state": each.state(now),
    }
