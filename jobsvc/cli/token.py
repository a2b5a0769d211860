"""jobsvc token create|list|revoke|prune: manage the token file, which a running service reloads by itself.

Exit codes: 0 success; 1 no such token, or a fault that may be temporary (disk full); 2 wrong use, or a token
file or state directory that cannot be used.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import orjson

from jobsvc.cli.settings_options import (
    configured_values,
    setting_errors,
    settings_options,
    warn_of_unknown_variables,
)
from jobsvc.cli.state_file_errors import LABELS_REMEDY, state_file_errors
from jobsvc.domain.access import SCOPES, Token
from jobsvc.settings import OPTIONS, default_state_dir, resolve
from jobsvc.storage.layout import TOKEN_USE_FILE, TOKENS_FILE
from jobsvc.storage.state import token_file
from jobsvc.storage.state.token_format import check_name, time_text
from jobsvc.storage.state.token_use_file import load_use

Command = TypeVar("Command", bound=Callable[..., Any])

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([0-9]{1,12})([smhdw])", re.ASCII)
_MAX_DURATION: Final = 100 * 366 * 86_400
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


class Duration(click.ParamType[float | None]):
    """Click type of a token's lifetime: 90d, 12h, 30m, or never."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Return seconds, or None for `never`."""
        if value == "never":
            return None
        match = _DURATION.fullmatch(value)
        seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
        if not 0 < seconds <= _MAX_DURATION:
            self.fail(f"{value!r} is not a duration such as 90d, 12h or 30m, or never.", param, ctx)
        return seconds


def _state_options(command: Command) -> Command:
    """Add the options --state-dir and --config of `jobsvc serve` to a command."""
    return settings_options("state-dir", "config")(command)


def _token_file(ctx: click.Context) -> Path:
    """Return the path of the token file in the configured or default state directory."""
    warn_of_unknown_variables()
    with setting_errors():
        configured = resolve(
            configured_values(ctx), [option for option in OPTIONS if option.name == "state-dir"]
        )
    try:
        return Path(configured.get("state_dir") or default_state_dir()) / TOKENS_FILE
    except ValueError as exc:
        raise click.UsageError(f"--state-dir {exc}") from exc


@click.group
def token() -> None:
    """Manage access tokens.

    Tokens are kept in tokens.json of the state directory, as SHA-256 digests. A running service reads it
    by itself: a change takes effect within two seconds. Use the state directory of the service (--state-dir,
    JOBSVC_STATE_DIR or --config), and run the command as the service's user or as root.
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
    type=Duration(),
    default="never",
    show_default=True,
    help="Lifetime of the token, such as 90d, 12h or 30m.",
)
@_state_options
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
    path = _token_file(ctx)
    expires = None if lifetime is None else time.time() + lifetime
    for name, value in (("--owner", owner), ("--label", label)):
        with _value_errors(name):
            if value is not None:
                check_name(value)
    with state_file_errors(path):
        secret, created = token_file.create(path, owner, scopes, expires, label)
    click.echo(secret)
    end = "until it is revoked" if created.expires is None else f"until {time_text(created.expires)}"
    click.echo(
        f"Token {created.id} of {owner}, valid {end}. Keep it safe: it cannot be shown again.", err=True
    )


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per line.")
@_state_options
@click.pass_context
def list_(ctx: click.Context, /, *, as_json: bool, **_: object) -> None:
    """List all tokens, including expired and revoked ones.

    The running service writes LAST-USED once a minute. The tokens themselves cannot be shown.
    """
    path = _token_file(ctx)
    with state_file_errors(path):
        tokens, used = token_file.load(path), load_use(path.with_name(TOKEN_USE_FILE))
    now = time.time()
    described = [_describe(each, used.get(each.id), now) for each in tokens]
    if as_json:
        for each in described:
            click.echo(orjson.dumps(each))
        return
    rows = [[_cell(key, row[key]) for key in _COLUMNS.values()] for row in described]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in chain([list(_COLUMNS)], rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@token.command
@click.argument("name", metavar="ID|TOKEN|-")
@_state_options
@click.pass_context
def revoke(ctx: click.Context, /, name: str, **_: object) -> None:
    """Revoke a token, by its id or by the token itself.

    With - the id or token is read from standard input, so that it is in no shell history and in no list of
    processes. A running service refuses the token within two seconds.
    """
    path = _token_file(ctx)
    if name == "-":
        name = sys.stdin.readline(_MAX_SECRET_LENGTH).strip()
    with state_file_errors(path):
        try:
            revoked = token_file.revoke(path, name)
        except token_file.UnknownToken as exc:
            # The argument might be the token itself, so it is not printed.
            message = f"No token in {path} matches this id or token; `jobsvc token list` shows the ids."
            raise click.ClickException(message) from exc
        label_fault = token_file.load_if_changed(path).label_fault
    click.echo(f"Token {revoked.id} of {revoked.owner} is revoked.", err=True)
    if label_fault is not None:
        click.echo(f"Warning: {label_fault}{LABELS_REMEDY}", err=True)


@token.command
@_state_options
@click.pass_context
def prune(ctx: click.Context, /, **_: object) -> None:
    """Remove expired tokens, and print their ids."""
    path = _token_file(ctx)
    with state_file_errors(path):
        removed = token_file.prune(path)
    for each in removed:
        click.echo(each.id)
    click.echo(f"{len(removed)} expired token{'s' * (len(removed) != 1)} removed.", err=True)


@contextmanager
def _value_errors(option: str) -> Iterator[None]:
    try:
        yield
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint=option) from exc


def _describe(each: Token, used: float | None, now: float) -> dict[str, str | list[str] | None]:
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


def _cell(key: str, value: str | list[str] | None) -> str:
    if value is None:
        return _NONE[key]
    return value if isinstance(value, str) else ",".join(value)
