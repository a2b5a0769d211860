"""jobsvc config show: the value of each option, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import click

from jobsvc.cli.settings_options import (
    configured_values,
    setting_errors,
    settings_options,
    warn_of_unknown_variables,
)
from jobsvc.domain.job import SYNONYMS
from jobsvc.settings import Option, describe
from jobsvc.shared_state.redis_url import hide_password
from jobsvc.storage.layout import OutputRoot


@click.group
def config() -> None:
    """Show the configuration of the service."""


@config.command
@settings_options()
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object: value and source by option.")
@click.pass_context
def show(ctx: click.Context, /, *, as_json: bool, **_: object) -> None:
    """Show the value of each option, and where it comes from.

    Takes the options, environment variables and config file of `jobsvc serve`. The output is a config file,
    with the sources as comments. A password in a URL is not shown. Directories are not checked: see
    `jobsvc serve --check-config`.

    Exit code 2: a value or the config file is invalid.
    """
    warn_of_unknown_variables()
    with setting_errors():
        described = [
            (option, _plain(option, value), origin.removeprefix("the "))
            for option, value, origin in describe(configured_values(ctx))
        ]
    if as_json:
        document = {option.name: {"value": value, "source": source} for option, value, source in described}
        click.echo(json.dumps(document, indent=2))
        return
    for option, value, source in described:
        click.echo(_toml_line(option, value, source))


def _plain(option: Option, value: Any) -> Any:  # noqa: ANN401 - any option's type, then JSON's
    """Convert a setting to a type of JSON and TOML; None if it is not set."""
    if option.spec.is_secret and value:
        return hide_password(value)
    if isinstance(value, Mapping):  # status aliases; the built-in ones are always there
        return [f"{word}={meaning}" for word, meaning in value.items() if SYNONYMS.get(word) != meaning]
    if isinstance(value, tuple) and not isinstance(value, OutputRoot):
        return [_plain(option, each) for each in value]
    if isinstance(value, OutputRoot):
        return f"{value.owner}={value.path}"
    if isinstance(value, Path | IPv4Network | IPv6Network | str):
        return str(value) or None
    return value


def _toml_line(option: Option, value: Any, source: str) -> str:  # noqa: ANN401 - as above
    """Return a line of a config file. A value that is not set, or is not one of the file's, is a comment."""
    if value is None:
        return f"# {option.name} is not set"
    hidden = "; replace the asterisks" if option.spec.is_secret and "***" in value else ""
    line = f"{option.name} = {_toml(value)}  # {_one_line(source)}{hidden}"
    return f"# {line}" if option.field == "config" else line


def _toml(value: Any) -> str:  # noqa: ANN401 - as above
    # A JSON string is a TOML string, except that DEL must be escaped and \\/ must not; numbers are the same.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _one_line(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
