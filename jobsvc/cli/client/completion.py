"""jobsvc completion: print a script for a shell; complete job ids from the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Thread
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from jobsvc.cli.client.exit_codes import client_errors
from jobsvc.cli.client.parameters import JOB_ID, examples
from jobsvc.cli.client.terminal import one_line
from jobsvc.client import Client

ANSWER_TIMEOUT_S: Final = 1.5
"""A shell shows nothing until it has the completions."""
_MAX_JOBS: Final = 200
"""The newest jobs, in one request."""


@click.command(
    epilog=examples(
        'eval "$(jobsvc completion bash)"    # in ~/.bashrc',
        'eval "$(jobsvc completion zsh)"     # in ~/.zshrc',
        "jobsvc completion fish > ~/.config/fish/completions/jobsvc.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print a script that completes commands, options and job ids.

    Job ids are requested from the service, with the URL and the token of the environment or of the profile.
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these three
    script = kind(ctx.find_root().command, {}, "jobsvc", "_JOBSVC_COMPLETE")
    with client_errors():
        # Without the check of BashComplete.source(), which runs bash: the script may be for another machine.
        click.echo(ShellComplete.source(script))


def complete_job_id(
    params: Mapping[str, Any], incomplete: str, statuses: Sequence[str]
) -> list[CompletionItem[str]]:
    """Return the ids of jobs that begin with `incomplete`, newest first; none after 1.5 s or an error.

    `params` are the options of the connection, as far as they are on the command line.
    """
    found: list[CompletionItem[str]] = []

    def request() -> None:
        try:
            connection = {name: params.get(name) for name in ("url", "profile", "ca_file")}
            with Client(**connection, timeout=ANSWER_TIMEOUT_S, retries=0) as client:
                found.extend(
                    CompletionItem(job.id, help=one_line(job.status))
                    for job in client.jobs(status=statuses, limit=_MAX_JOBS)
                    if job.id.startswith(incomplete) and JOB_ID.fullmatch(job.id)
                )
        except Exception:  # noqa: BLE001, S110 - an error text would end up on the command line
            pass

    # A thread, because resolving a name or slow responses can take longer than the timeout of a connection.
    thread = Thread(target=request, daemon=True)
    thread.start()
    thread.join(ANSWER_TIMEOUT_S)
    return list(found)
