"""jobsvc login, logout and whoami: the saved URL and token."""

from __future__ import annotations

import os
import sys
from typing import Final
from urllib.parse import urlsplit

import click

from jobsvc.cli.client.exit_codes import ClientFailure, ExitCode, client_errors, complain
from jobsvc.cli.client.output import write_json
from jobsvc.cli.client.parameters import CA_OPTION, PROFILE_OPTION, examples, output_option, with_client
from jobsvc.cli.client.terminal import one_line
from jobsvc.client import Client, TokenInfo
from jobsvc.client import profile as profiles
from jobsvc.client.connection_settings import normalize_url

_MAX_TOKEN_LENGTH: Final = 512
"""Characters of the line on standard input."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_VARIABLES: Final = ("JOBSVC_URL", "JOBSVC_TOKEN", "JOBSVC_TOKEN_FILE")


@click.command(
    epilog=examples(
        "jobsvc login https://render.example.com",
        "jobsvc login https://render.example.com < token-file",
        "jobsvc login --profile night-shift https://render.example.com",
    )
)
@click.argument("url", required=False)
@PROFILE_OPTION
@CA_OPTION
def login(url: str | None, profile: str | None, ca_file: str | None) -> None:
    """Save the URL and the token of a service in a profile.

    The token is read from standard input, or without echo from the terminal. It is saved only if the service
    accepts it, in a file that only you can read. URL is not needed if JOBSVC_URL or the profile has it.
    """
    with client_errors():
        name = profile or os.environ.get("JOBSVC_PROFILE") or profiles.DEFAULT_NAME
        url = url or os.environ.get("JOBSVC_URL") or _saved_url(name) or _ask("URL of the service")
        parts = urlsplit(normalize_url(url))
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            complain("Warning: the token is sent without encryption, because the URL is not https.")
        token = _ask("Token", hidden=True)
        with Client(url, token, ca_file=ca_file) as client:
            info = client.token_info()
        path = profiles.save(name, url, token)
        click.echo(f"Logged in to {one_line(url)}: {_summary(info)}.", err=True)
        click.echo(f"Saved as the profile {name!r} in {one_line(str(path))}.", err=True)
        _warn_of_environment(profile)


@click.command(epilog=examples("jobsvc logout", "jobsvc logout --profile night-shift"))
@PROFILE_OPTION
def logout(profile: str | None) -> None:
    """Remove the saved URL and token.

    The token itself remains valid until it expires or is revoked (`jobsvc token revoke` on the service).
    """
    with client_errors():
        name = profile or os.environ.get("JOBSVC_PROFILE") or profiles.DEFAULT_NAME
        removed = profiles.remove(name)
        done = "is removed" if removed else "does not exist"
        click.echo(f"The profile {one_line(name)!r} {done}.", err=True)
        _warn_of_environment(profile)


@click.command(epilog=examples("jobsvc whoami", "jobsvc whoami -o json | jq .budgets"))
@output_option("text", "json")
@with_client
def whoami(client: Client, /, form: str) -> None:
    """Show whose token is used, its scopes and its expiry.

    `-o json` also has the budgets of requests and what remains of them.
    """
    info = client.token_info()
    params = click.get_current_context().params
    url = profiles.resolve(params["url"], profile=params["profile"]).base_url
    if form == "json":
        write_json({"url": url, **info.document}, indent=2)
        return
    lines = {
        "url": url,
        "owner": info.owner,
        "token": info.id,
        "label": info.label or "",
        "scopes": ", ".join(info.scopes),
        "expires": _expiry(info),
    }
    for label, value in lines.items():
        if value:
            click.echo(f"{label:7}  {one_line(value)}")


def _saved_url(name: str) -> str | None:
    saved = profiles.load_all().get(name)
    return None if saved is None else saved.url


def _ask(what: str, *, hidden: bool = False) -> str:
    """Read a line from the terminal, or the token from standard input. Raises ClientFailure."""
    if sys.stdin is not None and sys.stdin.isatty():
        return str(click.prompt(what, hide_input=hidden, err=True)).strip()
    line = sys.stdin.readline(_MAX_TOKEN_LENGTH).strip() if hidden and sys.stdin is not None else ""
    if not line:
        where = "Write it to standard input" if hidden else "Give it as the argument, or set JOBSVC_URL"
        raise ClientFailure(f"{what} is missing. {where}.", ExitCode.USAGE)
    return line


def _summary(info: TokenInfo) -> str:
    label = f" ({info.label})" if info.label else ""
    scopes = ", ".join(info.scopes) or "none"
    return one_line(f"owner {info.owner}, token {info.id}{label}, scopes {scopes}, expires {_expiry(info)}")


def _expiry(info: TokenInfo) -> str:
    return "never" if info.expires_at is None else f"{info.expires_at:%Y-%m-%dT%H:%M:%SZ}"


def _warn_of_environment(profile: str | None) -> None:
    """Say which variables are used instead of the profile."""
    found = [name for name in _VARIABLES if os.environ.get(name)]
    if found and profile is None:
        verb = "is" if len(found) == 1 else "are"
        complain(f"Warning: {', '.join(found)} {verb} set and used instead of the profile.")
