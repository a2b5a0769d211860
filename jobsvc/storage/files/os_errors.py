"""Describe OSErrors in text, and tell temporary errors from permanent ones."""

from __future__ import annotations

import errno
from typing import Final

_LASTING: Final = frozenset({
    errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS,
    errno.EINVAL, errno.ENOTSUP, errno.EAFNOSUPPORT, errno.ENOSYS, errno.ENOLCK,
})  # fmt: skip


def describe(fault: OSError) -> str:
    """Return the error's name and text: "ESTALE (Stale file handle)"; only the text if it has no errno."""
    text = fault.strerror or str(fault) or type(fault).__name__
    name = errno.errorcode.get(fault.errno or 0)
    return f"{name} ({text})" if name else text


def is_temporary(fault: BaseException | None) -> bool:
    """Return whether the error may be gone at the next start: a missing mount, a full disk, a slow server.

    False for errors caused by the configuration or by permissions, and for anything but an OSError.
    """
    return isinstance(fault, OSError) and fault.errno not in _LASTING
