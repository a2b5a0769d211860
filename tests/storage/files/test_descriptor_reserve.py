from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jobsvc.storage.files.descriptor_reserve import DescriptorReserve


def test_missing_file_is_an_error_with_a_reserve_too(tmp_path: Path) -> None:
    reserve = DescriptorReserve()
    reserve.fill()
    with pytest.raises(FileNotFoundError):
        reserve.open(tmp_path / "none", os.O_RDONLY)
    reserve.close()


def test_reserve_is_used_when_no_other_descriptor_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    reserve, really = DescriptorReserve(), os.open
    reserve.fill()
    refused: list[str] = []

    def once(path: str, flags: int) -> int:
        if not refused:
            refused.append(path)
            raise OSError(errno.EMFILE, "too many open files")
        return really(path, flags)

    monkeypatch.setattr(os, "open", once)
    os.close(reserve.open(tmp_path / "file", os.O_RDONLY))
    assert refused
    reserve.close()
