"""jobsvc man: write the man pages, built from the help texts of the commands. See man-pages(7), man(7).

The library for this, click-man 0.6, leaves out commands that are imported when they are used, and does not
escape the text for roff.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from jobsvc import __version__


@click.command
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.pass_context
def man(ctx: click.Context, /, directory: Path) -> None:
    """Write the man pages into a directory.

    One page for jobsvc and one for each command, such as jobsvc-token-create.1:

    \b
    jobsvc man /usr/local/share/man/man1
    """  # noqa: D301 - \b is for click
    root = ctx.find_root()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        pages = list(_contexts(root.command, "jobsvc", None))
        for page in pages:
            name = page.command_path.replace(" ", "-")
            (directory / f"{name}.1").write_text(_page(page), "utf-8")
    except OSError as exc:
        raise click.ClickException(f"{exc.filename}: {exc.strerror}") from exc
    click.echo(f"{len(pages)} pages in {directory}", err=True)


def _contexts(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """Yield the context of a command and of all of its subcommands."""
    ctx = click.Context(command, info_name=name, parent=parent, help_option_names=["-h", "--help"])
    yield ctx
    if isinstance(command, click.Group):
        for each in command.list_commands(ctx):
            found = command.get_command(ctx, each)
            assert found is not None  # noqa: S101 - it is in the list
            yield from _contexts(found, each, ctx)


def _page(ctx: click.Context) -> str:
    name = ctx.command_path.replace(" ", "-")
    lines = [
        f'.TH "{_escaped(name.upper())}" "1" "" "jobsvc {__version__}" "jobsvc"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(ctx.command.get_short_help_str(200).rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fB{_escaped(ctx.command_path)}\\fR {_escaped(' '.join(ctx.command.collect_usage_pieces(ctx)))}",
        ".SH DESCRIPTION",
        *_paragraphs(ctx.command.help or ""),
        *_options(ctx),
        *_commands(ctx),
    ]
    if ctx.command.epilog:
        lines += [".SH EXAMPLES", *_paragraphs(ctx.command.epilog.replace("Examples:\n", ""))]
    if ctx.parent is not None:
        parent = ctx.parent.command_path.replace(" ", "-")
        lines += [".SH SEE ALSO", f"\\fB{_escaped(parent)}\\fR(1)"]
    return "\n".join(lines) + "\n"


def _options(ctx: click.Context) -> Iterator[str]:
    yield ".SH OPTIONS"
    for parameter in ctx.command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and record[1]:
            yield from (".TP", f"\\fB{_escaped(record[0])}\\fR", _escaped(record[1]))


def _commands(ctx: click.Context) -> Iterator[str]:
    if isinstance(ctx.command, click.Group):
        yield ".SH COMMANDS"
        for each in ctx.command.list_commands(ctx):
            found = ctx.command.get_command(ctx, each)
            assert found is not None  # noqa: S101 - it is in the list
            page = f"{ctx.command_path} {each}".replace(" ", "-")
            yield from (".TP", f"\\fB{_escaped(page)}\\fR(1)", _escaped(found.get_short_help_str(200)))


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; click keeps the lines of one that begins with a backspace."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.splitlines()
        yield ".PP"
        if lines and lines[0].strip() == "\b":
            yield from (".nf", *map(_escaped, lines[1:]), ".fi")
        else:
            yield _escaped(" ".join(line.strip() for line in lines))


def _escaped(text: str) -> str:
    """Escape text for roff: a hyphen is a minus sign, and no line is a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("^", "\\(ha")
    text = text.replace("~", "\\(ti")
    return f"\\&{text}" if text.startswith((".", "'")) else text
