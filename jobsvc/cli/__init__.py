"""The jobsvc command.

Exit codes: 0 success; 1 a finding, or a fault that a restart can fix; 2 wrong use or configuration.
A subcommand's module is imported only when it is used, so that creating a token does not wait for the import
of a web server.
"""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Final

import click

from jobsvc import __version__
from jobsvc.cli.utf8 import require_utf8

_COMMANDS: Final = ("serve", "token", "check", "demo")


class _Lazy(click.Group):
    """A click group that imports command NAME from the module jobsvc.cli.NAME on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names, in the order in which a new user needs them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is no command of this name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"jobsvc.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - guaranteed by the modules, and tested
        return command


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jobsvc")
def main() -> None:
    """Serve status, logs and finished files of render jobs from their directories, over HTTP.

    Start with `jobsvc demo`, which needs no configuration.
    """
    require_utf8()
    for stream in (sys.stdout, sys.stderr):
        # Characters that the locale's encoding lacks, in an owner's name or a path, are written as \\uXXXX.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
