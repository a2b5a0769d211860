"""jobsvc token create|list|revoke: the operator's hand on the token file, which a service sees by itself.

Exit codes: 0, 1 where there is no such token, 2 for wrong use and for a token file that can't be used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final

import click
import orjson

from jobsvc.domain.access import SCOPES, Token
from jobsvc.settings import default_state_dir
from jobsvc.storage import tokens
from jobsvc.storage.layout import TOKENS_FILE
from jobsvc.storage.token_format import time_text

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LIFE: Final = re.compile(r"([0-9]{1,12})([smhdw])", re.ASCII)
_LIFE_MAX: Final = 100 * 366 * 86_400
_COLUMNS: Final = ("id", "owner", "scopes", "created", "expires", "state")


class Unusable(click.ClickException):
    """The state directory or what is in it can't be worked with."""

    exit_code = 2


class Life(click.ParamType[float | None]):
    """How long a token is good: 90d, 12h, 30m; or never, which stands for no end."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Turn it into seconds, or None for ever."""
        if value == "never":
            return None
        match = _LIFE.fullmatch(value)
        seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
        if not 0 < seconds <= _LIFE_MAX:
            self.fail(f"{value!r} is neither a time such as 90d, 12h or 30m, nor never.", param, ctx)
        return seconds


def _token_file(_ctx: click.Context, _param: click.Parameter, folder: Path | None) -> Path:
    try:
        return (folder or default_state_dir()) / TOKENS_FILE
    except ValueError as wrong:
        raise click.UsageError(f"--state-dir {wrong}") from wrong


_STATE_DIR: Final = click.option(
    "--state-dir",
    "path",
    type=click.Path(path_type=Path),
    callback=_token_file,
    metavar="DIR",
    help="Where the service keeps its own files.  [default: $JOBSVC_STATE_DIR, else the XDG state folder]",
)


@click.group
def token() -> None:
    """Hand out tokens, list them, revoke them."""


@token.command
@click.option("--owner", required=True, help="Whose jobs the token may see.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=tokens.DEFAULT_SCOPES,
    show_default=True,
    help="What the token may do; repeatable.",
)
@click.option(
    "--expires",
    "life",
    type=Life(),
    default="never",
    show_default=True,
    help="How long it is good: 90d, 12h, 30m.",
)
@_STATE_DIR
def create(owner: str, scopes: tuple[str, ...], life: float | None, path: Path) -> None:
    """Make a token and print it, alone, on standard output. It is shown this once."""
    expires = None if life is None else time.time() + life
    with _refusals():
        try:
            secret, made = tokens.create(path, owner, scopes, expires)
        except ValueError as wrong:
            raise click.BadParameter(str(wrong), param_hint="--owner") from wrong
    click.echo(secret)
    end = "until it is revoked" if made.expires is None else f"until {time_text(made.expires)}"
    click.echo(f"Token {made.id} of {owner}, good {end}. Keep it safe: it can't be shown again.", err=True)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_STATE_DIR
def list_(path: Path, *, as_json: bool) -> None:
    """List all tokens by id, the expired and revoked too. The tokens themselves are kept nowhere."""
    with _refusals():
        found = tokens.load(path)
    now = time.time()
    if as_json:
        for each in found:
            click.echo(orjson.dumps(_described(each, now)))
        return
    rows = [[_cell(row[column]) for column in _COLUMNS] for row in (_described(each, now) for each in found)]
    heads = [column.upper() for column in _COLUMNS]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in chain([heads], rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@token.command
@click.argument("token_id", metavar="ID")
@_STATE_DIR
def revoke(token_id: str, path: Path) -> None:
    """Revoke the token of this id; a running service heeds it within two seconds."""
    with _refusals():
        try:
            gone = tokens.revoke(path, token_id)
        except tokens.UnknownToken as unknown:
            # What was given may be the token itself: it is not repeated.
            raise click.ClickException("No token has this id; `jobsvc token list` names them.") from unknown
    click.echo(f"Token {gone.id} of {gone.owner} is revoked.", err=True)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what is wrong with the state directory into a message and exit code 2."""
    try:
        yield
    except (tokens.BadTokenFile, OSError) as wrong:
        raise Unusable(str(wrong)) from wrong


def _described(each: Token, now: float) -> dict[str, str | list[str] | None]:
    return {
        "id": each.id,
        "owner": each.owner,
        "scopes": sorted(each.scopes),
        "created": time_text(each.created),
        "expires": time_text(each.expires),
        "revoked": time_text(each.revoked),
        "state": each.state(now),
    }


def _cell(value: str | list[str] | None) -> str:
    if value is None:
        return "never"
    return value if isinstance(value, str) else ",".join(value)
