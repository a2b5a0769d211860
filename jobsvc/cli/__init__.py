"""The jobsvc command.

Exit codes: 0 success; 1 a finding, or a fault that a restart can fix; 2 wrong use or configuration. Those of
client commands are in client/exit_codes.py.
A subcommand's module is imported only when it is used, so that creating a token does not wait for the import
of a web server.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from io import TextIOWrapper
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from jobsvc import __version__
from jobsvc.cli.utf8 import require_utf8

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Listed(NamedTuple):
    """A command, without the import of its module."""

    module: str
    """Below jobsvc.cli."""
    summary: str
    """As its own help text begins; a test compares them."""


_SECTIONS: Final[Mapping[str, Mapping[str, _Listed]]] = MappingProxyType(
    {
        "Service": {
            "serve": _Listed("serve", "Serve jobs over HTTP until SIGTERM."),
            "token": _Listed("secrets.token", "Manage access tokens."),
            "secrets": _Listed(
                "secrets.secrets",
                "Create the directory of tokens and link key that several instances share.",
            ),
            "check": _Listed("check", "Check all jobs, and report on the storage."),
            "config": _Listed("operation.config", "Show the configuration of the service."),
            "healthcheck": _Listed(
                "operation.healthcheck", "Ask the service on this host whether it is ready."
            ),
            "systemd-unit": _Listed("operation.systemd_unit", "Print a unit for systemd."),
            "man": _Listed("operation.man", "Write the man pages into a directory."),
            "demo": _Listed("demo", "Try the service with sample jobs and a live render."),
        },
        "Client": {
            "login": _Listed("client.account", "Save the URL and the token of a service in a profile."),
            "logout": _Listed("client.account", "Remove the saved URL and token."),
            "whoami": _Listed("client.account", "Show whose token is used, its scopes and its expiry."),
            "jobs": _Listed("client.jobs", "List jobs, newest first."),
            "status": _Listed("client.job", "Show the state of a job and its outputs."),
            "wait": _Listed("client.wait", "Wait until jobs are completed, failed or canceled."),
            "logs": _Listed("client.logs", "Print the log of a job."),
            "download": _Listed("client.download", "Download the files of a completed job, and verify them."),
            "sync": _Listed(
                "client.sync", "Download the files of all completed jobs that the directory DIR lacks."
            ),
            "link": _Listed("link", "Create a URL that downloads without a token."),
            "completion": _Listed(
                "client.completion", "Print a script that completes commands, options and job ids."
            ),
        },
    }
)
_COMMANDS: Final = {name: listed for section in _SECTIONS.values() for name, listed in section.items()}


class _Lazy(click.Group):
    """A click group that imports the module of a command on its first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names, in the order in which a new user needs them."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is no command of this name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"jobsvc.cli.{_COMMANDS[cmd_name].module}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)  # noqa: S101 - guaranteed by the modules, and tested
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without importing them."""
        del ctx
        for title, section in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, listed.summary) for name, listed in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the commands that begin with `incomplete`, without importing them, or the options."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only shells need it

        named = [
            CompletionItem(name, help=listed.summary)
            for name, listed in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jobsvc")
def main() -> None:
    """Serve status, logs and finished files of render jobs over HTTP, and use such a service.

    Start with `jobsvc demo`, which needs no configuration.
    """
    require_utf8()
    for stream in (sys.stdout, sys.stderr):
        # Characters that the locale's encoding lacks, in an owner's name or a path, are written as \\uXXXX.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
