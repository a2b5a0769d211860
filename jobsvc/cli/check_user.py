"""Who runs `jobsvc check`, and who runs the service: the owner of its state directory, as far as is known."""

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
    """The two users."""

    user: int
    service: int | None
    """None where there is no state directory."""

    @classmethod
    def of(cls, state_dir: Path | None) -> Self:
        """Take the owner of the state directory, or of the default one, for the service's user."""
        try:
            folder = default_state_dir() if state_dir is None else state_dir
            return cls(os.geteuid(), folder.stat().st_uid)
        except (OSError, ValueError):
            return cls(os.geteuid(), None)

    def notes(self) -> Iterator[str]:
        """Say in one line that the service may be able to read less, or more, than was read here."""
        if self.service is None and self.user == 0:
            yield "user: root may read more than the service's user: run this as that user"
        elif self.service is not None and self.service != self.user:
            service, user = user_name(self.service), user_name(self.user)
            yield (
                f"user: {user}, but the state directory is {service}'s, so the service may read more or less:"
                f" run this as {service}"
            )

    def document(self) -> dict[str, str | None]:
        """Say the same for programs."""
        service = None if self.service is None else user_name(self.service)
        return {"user": user_name(self.user), "serviceUser": service}
