"""Names of files are UTF-8, whatever the locale says: a job's record is JSON, and names files in UTF-8."""

from __future__ import annotations

import os
import sys


def require_utf8() -> None:
    """Run the same command again in Python's UTF-8 mode where its names of files have another encoding.

    Python uses UTF-8 by itself in the locales C and POSIX, unless that is turned off, but not in one such as
    de_DE.ISO-8859-1. The encoding can't be changed once Python runs (PEP 540).
    """
    if sys.getfilesystemencoding().lower() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - the same command
