"""Use UTF-8 for file names in every locale: a job's record is JSON and contains file names in UTF-8."""

from __future__ import annotations

import os
import sys


def require_utf8() -> None:
    """Restart the command in Python's UTF-8 mode if the file system encoding is not UTF-8.

    Python uses UTF-8 by default in the locales C and POSIX, unless this is turned off, but not in locales
    such as de_DE.ISO-8859-1. The encoding cannot be changed while Python runs (PEP 540).
    """
    if sys.getfilesystemencoding().lower() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - the same command
