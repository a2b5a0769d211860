"""Read settings from the command line and the environment. click only collects the text.

`jobsvc.settings` parses and checks the text in the same way for all sources.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from jobsvc.settings import (
    OPTIONS,
    ConfiguredValue,
    Option,
    SettingsError,
    is_service_link,
    parsers,
    unknown_variables,
)
from jobsvc.storage.files.os_errors import is_temporary

Command = TypeVar("Command", bound=Callable[..., Any])


class _Text(click.ParamType[str]):
    """Unparsed text; the environment variable of a repeatable option is split as the option defines."""

    name = "text"

    def __init__(self, option: Option) -> None:
        self._option = option

    def split_envvar_value(self, rv: str) -> list[str]:
        return self._option.split(rv)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - the parent's signature
        param: click.Parameter,  # noqa: ARG002 - likewise
        incomplete: str,
    ) -> list[CompletionItem[str]]:
        """Let the shell complete paths."""
        if self._option.spec.parse not in {parsers.path, parsers.output_root}:
            return []
        return [CompletionItem(incomplete, type="file" if self._option.field == "config" else "dir")]


class _Switch(click.Option):
    """An option without a value on the command line; that of its variable is read like any other text."""

    def value_from_envvar(self, ctx: click.Context) -> str | None:
        return self.resolve_envvar_value(ctx)


class InvalidSetting(click.ClickException):
    """An invalid setting ends the command with a one-line message and the exit code of wrong use."""

    exit_code = 2


class TemporaryFault(InvalidSetting):
    """A fault ends the command, but a later attempt can succeed."""

    exit_code = 1


def file_error(message: str, cause: BaseException | None) -> click.ClickException:
    """Return the error for a file that cannot be used; its exit code is 1 if a later attempt can succeed."""
    return (TemporaryFault if is_temporary(cause) else InvalidSetting)(message)


def settings_options(*names: str) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of these names (default: all) to a click command."""
    chosen = [option for option in OPTIONS if not names or option.name in names]

    def decorate(command: Command) -> Command:
        for option in reversed(chosen):
            command = _parameter(option)(command)
        return command

    return decorate


def _parameter(option: Option) -> Callable[[Command], Command]:
    text, variable = _Text(option), option.variable
    if option.spec.argument:
        return click.argument(option.field, type=text, envvar=variable, required=False, metavar=option.flag)
    if option.is_switch:
        return click.option(
            option.flag,
            option.field,
            cls=_Switch,
            flag_value="true",
            type=text,
            envvar=variable,
            help=option.spec.help,
        )
    help_text = f"{option.spec.help} [{option.default}]" if option.default else option.spec.help
    return click.option(
        option.flag,
        option.field,
        type=text,
        envvar=variable,
        multiple=option.repeatable,
        metavar=option.spec.metavar,
        help=help_text,
    )


def warn_of_unknown_variables() -> None:
    """Print a warning on standard error for each unknown JOBSVC_... variable."""
    for name, close in unknown_variables(os.environ):
        meant = f"; did you mean {close}?" if close else ""
        click.echo(f"Warning: the environment variable {name} is unknown and has no effect{meant}", err=True)


def configured_values(ctx: click.Context) -> dict[str, ConfiguredValue]:
    """Return the settings given on the command line and in the environment, by field."""
    values = {}
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
        values[option.field] = ConfiguredValue(ctx.params[option.field], origin)
    return values


@contextmanager
def setting_errors() -> Iterator[None]:
    """Turn a SettingsError into one line on standard error and exit code 2, or 1 if it may be temporary."""
    try:
        yield
    except SettingsError as exc:
        raise (TemporaryFault if exc.may_be_temporary else InvalidSetting)(str(exc)) from exc
