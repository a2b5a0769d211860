"""What commands that write jobs share: the option --jobs-root, and how errors are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from jobsvc.farm import JobError

jobs_root_option: Final = click.option(
    "--jobs-root",
    required=True,
    envvar="JOBSVC_JOBS_ROOT",
    show_envvar=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of the jobs on the shared storage.",
)


@contextmanager
def job_errors() -> Iterator[None]:
    """Show what is wrong with a job, or with storage, in one line."""
    try:
        yield
    except (JobError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
