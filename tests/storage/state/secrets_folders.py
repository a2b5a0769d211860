"""Secrets directories as administrators and Kubernetes make them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

KUBERNETES_MODE: Final = 0o1777
"""Of the directory of a secret with fsGroup, without the set-group-id bit."""


@dataclass
class KubernetesSecret:
    """A mounted secret: `NAME -> ..data/NAME`, and `..data -> ..2026_N`, which is replaced by a rename."""

    folder: Path
    _numbers: count[int] = field(default_factory=count)

    def replace(self, files: Mapping[str, bytes]) -> None:
        """Make a new version of all files, as kubelet does."""
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(KUBERNETES_MODE)
        old = (self.folder / "..data").resolve() if (self.folder / "..data").is_symlink() else None
        version = self.folder / f"..2026_{next(self._numbers)}"
        version.mkdir(mode=0o755)
        for name, content in files.items():
            (version / name).write_bytes(content)
            (version / name).chmod(0o440)
        link = self.folder / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.folder / "..data")
        for name in files:
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        if old is not None:
            shutil.rmtree(old)
