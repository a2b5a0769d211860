"""The state of one file while it is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobsvc.client import DownloadError
from jobsvc.client.download.local.part_file import part_paths
from jobsvc.client.download.source import Source
from jobsvc.client.download.transfer.file_transfer import Transfer

SOURCE = Source("job-1", "main", "film.mp4", "/", '"etag"', 4)


def test_directory_that_becomes_a_link_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "job-1" / "film.mp4"
    target.parent.mkdir()
    transfer = Transfer(0, SOURCE, target, part_paths(target))
    transfer.check_directory()
    target.parent.rmdir()
    target.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DownloadError, match="job-1 was replaced"):
        transfer.check_directory()
