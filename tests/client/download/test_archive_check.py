"""Archives that are damaged, or made to harm the reader."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from contextlib import suppress

import pytest

from jobsvc.client import Corrupt
from jobsvc.client.download import archive_check
from jobsvc.client.download.archive_check import read_tar, read_zip


def tar_with(member: tarfile.TarInfo, data: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zip_with(compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("film/title.mp4", bytes(100_000))
    return buffer.getvalue()


def test_link_in_a_tar_is_not_a_file() -> None:
    member = tarfile.TarInfo("film/title.mp4")
    member.type, member.linkname = tarfile.SYMTYPE, "elsewhere"
    with pytest.raises(Corrupt, match="not a file"):
        read_tar(io.BytesIO(tar_with(member)), hashed=True, check=lambda: None)


def test_compressed_zip_is_refused() -> None:
    """The service does not compress, and a small compressed file can take hours to read."""
    with pytest.raises(Corrupt, match="compressed"):
        read_zip(io.BytesIO(zip_with(zipfile.ZIP_DEFLATED)), verify=True, check=lambda: None)


@pytest.mark.parametrize("seed", range(300))
def test_damaged_archive_is_corrupt_or_read(seed: int) -> None:
    numbers = random.Random(seed)  # noqa: S311 - of a test
    member = tarfile.TarInfo("film/" + "\u00fc" * 200)
    member.size, member.pax_headers = 1000, {"GNU.sparse.map": "0,10,20,10", "mtime": "1.5"}
    for data in (tar_with(member, bytes(1000)), zip_with(zipfile.ZIP_STORED)):
        damaged = bytearray(data)
        headers = [index for index, byte in enumerate(damaged) if byte]
        for _ in range(numbers.randint(1, 20)):
            damaged[numbers.choice(headers)] = numbers.randrange(256)
        with suppress(Corrupt):
            read_tar(io.BytesIO(bytes(damaged)), hashed=True, check=lambda: None)
        with suppress(Corrupt):
            read_zip(io.BytesIO(bytes(damaged)), verify=True, check=lambda: None)


@pytest.mark.parametrize("seekable", [True, False])
def test_header_of_a_tar_that_would_fill_the_memory_is_refused(*, seekable: bool) -> None:
    member = tarfile.TarInfo("film/title.mp4")
    member.type, member.size = tarfile.XHDTYPE, 1 << 40
    data = member.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)
    with pytest.raises(Corrupt, match="too large"):
        read_tar(io.BytesIO(data), hashed=True, check=lambda: None, seekable=seekable)


def test_sparse_file_in_a_tar_is_refused() -> None:
    """Exabytes of zeros would be hashed for years."""
    member = tarfile.TarInfo("film/title.mp4")
    member.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 50)}
    with pytest.raises(Corrupt, match="not a file"):
        read_tar(io.BytesIO(tar_with(member)), hashed=True, check=lambda: None)


def test_directory_of_a_zip_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_check, "MAX_DIRECTORY", 50)
    with pytest.raises(Corrupt, match="too large"):
        read_zip(io.BytesIO(zip_with(zipfile.ZIP_STORED)), verify=False, check=lambda: None)
