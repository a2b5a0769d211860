"""jobsvc link: create a link as a client, and list and revoke links as an operator.

Everything but the names of the commands creates a link: `jobsvc link ID`. Creating a link imports nothing of
the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import click

from jobsvc.cli.client.parameters import examples
from jobsvc.cli.lazy_group import LazyGroup, ListedCommand

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


_COMMANDS: Final[Mapping[str, ListedCommand]] = MappingProxyType(
    {
        "create": ListedCommand("client.job", "Create a URL that downloads without a token.", "create_link"),
        "list": ListedCommand("secrets.links", "List the links that services have created.", "list_"),
        "revoke": ListedCommand("secrets.links", "Revoke a link, by its id or its URL."),
    }
)
_HELP: Final = ("-h", "--help")


class _LinkGroup(LazyGroup):
    """A group whose command `create` need not be named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `create` before anything that is no command."""
        if args and args[0] not in {*_COMMANDS, *_HELP}:
            args = ["create", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return commands that begin with `incomplete`, and what can follow the command `create`."""
        create = self.get_command(ctx, "create")
        assert create is not None  # noqa: S101 - it is in the table
        arguments = [each for each in create.params if isinstance(each, click.Argument)]
        jobs = [] if incomplete.startswith("-") else arguments[0].shell_complete(ctx, incomplete)
        return [*self.complete_names(incomplete), *jobs, *create.shell_complete(ctx, incomplete)]


@click.command(
    cls=_LinkGroup,
    sections={"Commands": _COMMANDS},
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
