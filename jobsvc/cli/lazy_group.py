"""A group of commands whose modules are imported only when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class ListedCommand(NamedTuple):
    """A command, without the import of its module."""

    module: str
    """Below jobsvc.cli."""
    summary: str
    """As its own help text begins; a test compares them."""
    attribute: str = ""
    """Name of the command in its module; by default that of the command, with underscores."""


class LazyGroup(click.Group):
    """A click group that imports the module of a command on its first use."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - those of the parent
        sections: Mapping[str, Mapping[str, ListedCommand]],
        **options: Any,  # noqa: ANN401 - likewise
    ) -> None:
        """`sections`: the commands by the title of their section and by name, as help lists them."""
        super().__init__(*args, **options)
        self._sections = sections
        self._listed = {name: listed for section in sections.values() for name, listed in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names, in the order of the sections."""
        del ctx
        return list(self._listed)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is no command of this name."""
        del ctx
        listed = self._listed.get(cmd_name)
        if listed is None:
            return None
        module = import_module(f"jobsvc.cli.{listed.module}")
        command = getattr(module, listed.attribute or cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)  # noqa: S101 - guaranteed by the modules, and tested
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without importing them."""
        del ctx
        for title, section in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, listed.summary) for name, listed in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the commands that begin with `incomplete`, without importing them, or the options."""
        return self.complete_names(incomplete) + click.Command.shell_complete(self, ctx, incomplete)

    def complete_names(self, incomplete: str) -> list[CompletionItem[str]]:
        """Return the commands that begin with `incomplete`."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only shells need it

        return [
            CompletionItem(name, help=listed.summary)
            for name, listed in self._listed.items()
            if name.startswith(incomplete)
        ]
