"""The jobsvc command.

Exit codes: 0 success; 1 a finding, or a fault that a restart can fix; 2 wrong use or configuration. Those of
client commands are in client/exit_codes.py.
A subcommand's module is imported only when it is used, so that creating a token does not wait for the import
of a web server.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import TextIOWrapper
from types import MappingProxyType
from typing import Final

import click

from jobsvc import __version__
from jobsvc.cli.lazy_group import LazyGroup, ListedCommand
from jobsvc.cli.utf8 import require_utf8

_SECTIONS: Final[Mapping[str, Mapping[str, ListedCommand]]] = MappingProxyType(
    {
        "Service": {
            "serve": ListedCommand("serve", "Serve jobs over HTTP until SIGTERM."),
            "token": ListedCommand("secrets.token", "Manage access tokens."),
            "secrets": ListedCommand(
                "secrets.secrets",
                "Create the directory of tokens and link key that several instances share.",
            ),
            "check": ListedCommand("check", "Check all jobs, and report on the storage."),
            "config": ListedCommand("operation.config", "Show the configuration of the service."),
            "healthcheck": ListedCommand(
                "operation.healthcheck", "Ask the service on this host whether it is ready."
            ),
            "systemd-unit": ListedCommand("operation.systemd_unit", "Print a unit for systemd."),
            "man": ListedCommand("operation.man", "Write the man pages into a directory."),
            "demo": ListedCommand("demo", "Try the service with sample jobs and a live render."),
        },
        "Farm": {
            "run": ListedCommand("render.run", "Run a renderer, and write its job."),
            "farm": ListedCommand("render.hooks", "Write the directory of a job, one command for each step."),
        },
        "Client": {
            "login": ListedCommand("client.account", "Save the URL and the token of a service in a profile."),
            "logout": ListedCommand("client.account", "Remove the saved URL and token."),
            "whoami": ListedCommand("client.account", "Show whose token is used, its scopes and its expiry."),
            "jobs": ListedCommand("client.jobs", "List jobs, newest first."),
            "status": ListedCommand("client.job", "Show the state of a job and its outputs."),
            "wait": ListedCommand("client.wait", "Wait until jobs are completed, failed or canceled."),
            "logs": ListedCommand("client.logs", "Print the log of a job."),
            "download": ListedCommand(
                "client.download", "Download the files of a completed job, and verify them."
            ),
            "sync": ListedCommand(
                "client.sync", "Download the files of all completed jobs that the directory DIR lacks."
            ),
            "link": ListedCommand("link", "Create a URL that downloads without a token."),
            "completion": ListedCommand(
                "client.completion", "Print a script that completes commands, options and job ids."
            ),
        },
    }
)


@click.command(cls=LazyGroup, sections=_SECTIONS, context_settings={"help_option_names": ["-h", "--help"]})
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
