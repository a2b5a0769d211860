"""Turn errors of the files in the state or secrets directory into messages with a remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from jobsvc.cli.settings_options import file_error
from jobsvc.storage.files.os_errors import describe
from jobsvc.storage.files.users import user_name
from jobsvc.storage.layout import TOKEN_LABELS_FILE
from jobsvc.storage.state import token_file
from jobsvc.storage.state.revoked_links_file import BadRevokedLinks

_REMEDIES: Final = {
    errno.ENOSPC: "; free disk space there",
    errno.EDQUOT: "; free disk space there, or raise the quota",
    errno.EROFS: "; mount it writable, or use another --state-dir",
}
_SHARED_REMEDIES: Final = _REMEDIES | {
    errno.EROFS: "; change the secret where it is made, or name a copy that can be written as --secrets-dir"
}
LABELS_REMEDY: Final = "; correct it, or remove it: only the labels are lost, the tokens remain valid"


@contextmanager
def state_file_errors(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Turn faults of a file's directory into a one-line message with the remedy, and an exit code.

    `shared`: whether that is a secrets directory.
    """
    try:
        yield
    except (token_file.BadTokenFile, BadRevokedLinks) as exc:
        cause = exc.__cause__
        remedy = "; correct it or restore it from a backup" if isinstance(cause, ValueError) else ""
        if isinstance(cause, PermissionError):
            remedy = _other_user(path, shared=shared)
        elif str(exc).startswith(str(path.with_name(TOKEN_LABELS_FILE))):
            remedy = LABELS_REMEDY
        raise file_error(f"{exc}{remedy}", cause) from exc
    except PermissionError as exc:
        raise file_error(f"{path.parent}: {describe(exc)}{_other_user(path, shared=shared)}", exc) from exc
    except OSError as exc:
        remedy = (_SHARED_REMEDIES if shared else _REMEDIES).get(exc.errno or 0, "")
        raise file_error(f"{exc.filename or path.parent}: {describe(exc)}{remedy}", exc) from exc


def _other_user(path: Path, *, shared: bool) -> str:
    """Return the remedy for a permission error: run as the owner, or check the directory's path."""
    folder = path.parent
    try:
        owner = folder.stat().st_uid
    except OSError:
        owner = os.geteuid()
    kind = "secrets" if shared else "state"
    if owner == os.geteuid():
        names = f"--{kind}-dir or JOBSVC_{kind.upper()}_DIR"
        return f"; check that this is the service's {kind} directory ({names})"
    return f"; run this command as {user_name(owner)}, the owner of the {kind} directory"
