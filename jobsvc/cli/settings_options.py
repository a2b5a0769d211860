"""The command line's and the environment's part of the settings: click only collects the text.

What the text means, and what is wrong with it, `jobsvc.settings` says, for all sources alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from jobsvc.settings import (
    OPTIONS,
    ConfiguredValue,
    Option,
    SettingsError,
    is_service_link,
    unknown_variables,
)

Command = TypeVar("Command", bound=Callable[..., Any])


class _Text(click.ParamType[str]):
    """Text as it was given; of a repeatable option the environment's value is parted as the option says."""

    name = "text"

    def __init__(self, option: Option) -> None:
        self._option = option

    def split_envvar_value(self, rv: str) -> list[str]:
        return self._option.split(rv)


class InvalidSetting(click.ClickException):
    """A setting that stops the command: one line, and the exit code of wrong use."""

    exit_code = 2


class TemporaryFault(InvalidSetting):
    """A fault that stops the command now, while a later try may succeed."""

    exit_code = 1


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Give a click command the options of these names, or all, from the one table of settings."""
    chosen = [option for option in OPTIONS if not names or option.name in names]

    def decorate(command: Command) -> Command:
        for option in reversed(chosen):
            command = _parameter(option)(command)
        return command

    return decorate


def _parameter(option: Option) -> Callable[[Command], Command]:
    kind, variable = _Text(option), option.variable
    if option.spec.argument:
        return click.argument(option.field, type=kind, envvar=variable, required=False, metavar=option.flag)
    shown = f"{option.spec.help} [{option.default}]" if option.default else option.spec.help
    return click.option(
        option.flag,
        option.field,
        type=kind,
        envvar=variable,
        multiple=option.repeatable,
        metavar=option.spec.metavar,
        help=shown,
    )


def warn_of_unknown_variables() -> None:
    """Warn on standard error of each variable JOBSVC_... that is unknown."""
    for name, close in unknown_variables(os.environ):
        meant = f"; did you mean {close}?" if close else ""
        click.echo(f"Warning: the environment variable {name} is unknown and has no effect{meant}", err=True)


def configured_values(ctx: click.Context) -> dict[str, ConfiguredValue]:
    """Collect what the command line and the environment say of settings, by field."""
    found = {}
    for option in OPTIONS:
        match ctx.get_parameter_source(option.field):
            case ParameterSource.COMMANDLINE:
                origin = f"the {'argument' if option.spec.argument else 'flag'} {option.flag}"
            case ParameterSource.ENVIRONMENT if not is_service_link(
                option.variable, os.environ.get(option.variable, "")
            ):
                origin = f"the environment variable {option.variable}"
            case _:
                continue
        found[option.field] = ConfiguredValue(ctx.params[option.field], origin)
    return found


@contextmanager
def setting_errors() -> Iterator[None]:
    """Turn a SettingsError into one line on standard error and exit code 2, or 1 where it may pass."""
    try:
        yield
    except SettingsError as wrong:
        raise (TemporaryFault if wrong.may_be_temporary else InvalidSetting)(str(wrong)) from wrong
