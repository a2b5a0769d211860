"""jobsvc link: create a link as a client, and list and revoke links as an operator.

Everything but the names of the commands creates a link: `jobsvc link ID`. The module of a command is imported
only when it is used: creating a link imports nothing of the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from jobsvc.cli.client.parameters import examples

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Listed(NamedTuple):
    """A command, without the import of its module."""

    module: str
    attribute: str
    summary: str


_COMMANDS: Final[Mapping[str, _Listed]] = MappingProxyType(
    {
        "create": _Listed("client.job", "create_link", "Create a URL that downloads without a token."),
        "list": _Listed("secrets.links", "list_", "List the links that services have created."),
        "revoke": _Listed("secrets.links", "revoke", "Revoke a link, by its id or its URL."),
    }
)
_HELP: Final = ("-h", "--help")


class _LinkGroup(click.Group):
    """A group whose command `create` need not be named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `create` before anything that is no command."""
        if args and args[0] not in {*_COMMANDS, *_HELP}:
            args = ["create", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is no command of this name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        listed = _COMMANDS[cmd_name]
        command = getattr(import_module(f"jobsvc.cli.{listed.module}"), listed.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - guaranteed by the modules, and tested
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, listed.summary) for name, listed in _COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return commands that begin with `incomplete`, and what can follow the command `create`."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only shells need it

        create = self.get_command(ctx, "create")
        assert create is not None  # noqa: S101 - it is in the table
        named = [
            CompletionItem(name, help=listed.summary)
            for name, listed in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        arguments = [each for each in create.params if isinstance(each, click.Argument)]
        jobs = [] if incomplete.startswith("-") else arguments[0].shell_complete(ctx, incomplete)
        return [*named, *jobs, *create.shell_complete(ctx, incomplete)]


@click.command(
    cls=_LinkGroup,
    epilog=examples(
        "jobsvc link opening-title-0042 --expires 1d",
        "jobsvc link shot-0100 --archive zip",
        "jobsvc link shot-0100 --file beauty/beauty.1001.exr",
        "jobsvc link create list                    # of a job that is called list",
        "jobsvc link list --state-dir /var/lib/jobsvc",
        "jobsvc link revoke 8f14e45fceea167a --state-dir /var/lib/jobsvc",
    ),
)
def link() -> None:
    """Create a URL that downloads without a token.

    `jobsvc link ID` is the same as `jobsvc link create ID`: `jobsvc link create --help` shows its options.
    The other commands are for the operator of the service, and need its directories or its Redis.
    """
