"""Find JOBSVC_... variables that are not options: misspelt ones, and those set by an orchestrator.

For a service called `jobsvc`, Kubernetes and Docker set variables in the containers next to it: JOBSVC_PORT
is then "tcp://10.0.0.1:8080", which is not the option --port.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from jobsvc.settings.options import OPTIONS

PREFIX: Final = "JOBSVC_"
CLIENT_VARIABLES: Final = frozenset(
    f"{PREFIX}{name}"
    for name in ("URL", "TOKEN", "TOKEN_FILE", "PROFILE", "PROGRESS", "OUTPUT", "JOB_DIR", "JOB_ID", "OWNER")
)
"""Variables that clients, writers of jobs and renderers read."""
FAST_PATH_VARIABLE: Final = f"{PREFIX}FAST_PATH"
"""Not an option but a switch for debugging: "off" has every request handled by a task."""

_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+", re.ASCII)
_LINK: Final = re.compile(
    r"JOBSVC_([A-Z0-9_]+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
    r"|JOBSVC_ENV_\w+",
    re.ASCII,
)


def is_service_link(name: str, value: str) -> bool:
    """Return whether an orchestrator set the variable, for the address of a service called `jobsvc...`."""
    if name.startswith(PREFIX) and name.endswith("_PORT") and _ADDRESS.fullmatch(value):
        return True
    return _LINK.fullmatch(name) is not None or (name == "JOBSVC_NAME" and value.startswith("/"))


def unknown_variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str | None]]:
    """Yield each unknown JOBSVC_... variable and the known variable most similar to it, or None."""
    known = {option.variable for option in OPTIONS} | CLIENT_VARIABLES | {FAST_PATH_VARIABLE}
    for name, value in sorted(environment.items()):
        if name.startswith(PREFIX) and name not in known and not is_service_link(name, value):
            suffixes = [each.removeprefix(PREFIX) for each in sorted(known)]
            close = get_close_matches(name.removeprefix(PREFIX)[:64].upper(), suffixes, n=1)
            yield name, f"{PREFIX}{close[0]}" if close else None
