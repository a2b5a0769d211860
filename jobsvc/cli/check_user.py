"""Compare the user that runs `jobsvc check` with the service's user, the owner of the state directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jobsvc.settings import default_state_dir
from jobsvc.storage.files.users import user_name


@dataclass(frozen=True, slots=True)
class CheckUser:
    """User ids of the command and of the service."""

    user: int
    service: int | None
    """None if there is no state directory."""

    @classmethod
    def of(cls, state_dir: Path | None) -> Self:
        """Take the owner of the state directory (default: default_state_dir()) as the service's user."""
        try:
            folder = default_state_dir() if state_dir is None else state_dir
            return cls(os.geteuid(), folder.stat().st_uid)
        except (OSError, ValueError):
            return cls(os.geteuid(), None)

    def notes(self) -> Iterator[str]:
        """Yield one line if the service might be able to read more or less than this command."""
        if self.service is None and self.user == 0:
            yield "user: root can read more than the service's user; run this command as the service's user"
        elif self.service is not None and self.service != self.user:
            service, user = user_name(self.service), user_name(self.user)
            yield (
                f"user: {user}, but the state directory belongs to {service}, who can have other permissions;"
                f" run this command as {service}"
            )

    def document(self) -> dict[str, str | None]:
        """Return the two user names for the JSON output."""
        service = None if self.service is None else user_name(self.service)
        return {"user": user_name(self.user), "serviceUser": service}
