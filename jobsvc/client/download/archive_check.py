"""Read the members of an archive, and compare them with the list of the files that it should have."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from typing import IO, TYPE_CHECKING, BinaryIO, Final, Literal, NamedTuple, TypeAlias

from jobsvc.client.errors import Corrupt
from jobsvc.client.models import File

if TYPE_CHECKING:
    import tarfile

READ_SIZE: Final = 1 << 20
MAX_HEADER: Final = 1 << 20
"""Bytes of an extended header in a tar archive: it has a path."""
MAX_DIRECTORY: Final = 64 << 20
"""Bytes of the directory of a zip archive; 100,000 files have 20 MB."""
_DAMAGED: Final = (ValueError, LookupError, ArithmeticError, RuntimeError, struct.error)
"""What tarfile and zipfile raise, besides exceptions of their own, for damaged headers and directories."""

Check: TypeAlias = Callable[[], object]
"""Called from time to time, to end a long computation with an exception."""


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    sha256: str | None
    """None if it was not computed."""


def read_tar(archive: IO[bytes], *, hashed: bool, check: Check, seekable: bool = True) -> list[Member]:
    """Return the members of a tar archive, with their SHA-256 if `hashed`. Raises Corrupt."""
    import tarfile  # noqa: PLC0415 - only archives need it

    try:
        mode: Literal["r:", "r|"] = "r:" if seekable else "r|"
        with tarfile.open(fileobj=archive, mode=mode, bufsize=READ_SIZE, tarinfo=_limited_member()) as tar:
            return list(_tar_members(tar, hashed=hashed, check=check))
    except (tarfile.TarError, EOFError, *_DAMAGED) as exc:
        raise Corrupt(f"The archive is damaged: {exc}.") from exc


def read_zip(archive: BinaryIO, *, verify: bool, check: Check) -> list[Member]:
    """Return the members of a zip archive, and close it; with `verify` compare the CRC-32 of each.

    Raises Corrupt.
    """
    import zipfile  # noqa: PLC0415 - only archives need it

    try:
        with (
            _LimitedReader(archive) as limited,  # type: ignore[arg-type]  # BytesIO too
            zipfile.ZipFile(limited) as unpacked,
        ):
            items = unpacked.infolist()
            if any(item.compress_type != zipfile.ZIP_STORED for item in items):
                raise Corrupt("The archive has compressed files.")
            for item in items if verify else ():
                with unpacked.open(item) as content:
                    while content.read(READ_SIZE):
                        check()
    except (zipfile.BadZipFile, EOFError, *_DAMAGED) as exc:
        raise Corrupt(f"The archive is damaged: {exc}.") from exc
    return [Member(item.filename, item.file_size, None) for item in items]


def _limited_member() -> type[tarfile.TarInfo]:
    """Return a class of members that refuses extended headers which would fill the memory."""
    import tarfile  # noqa: PLC0415 - as above

    class LimitedMember(tarfile.TarInfo):
        def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
            if self.size > MAX_HEADER and not self.isreg():
                raise tarfile.ReadError("it has a header that is too large")
            return super()._proc_member(tar)  # type: ignore[misc,no-any-return]

    return LimitedMember


class _LimitedReader(BufferedReader):
    """A zip archive whose directory is not read if it would fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read. Raises Corrupt; without a size zipfile reads the last bytes only."""
        if size is not None and size > MAX_DIRECTORY:
            raise Corrupt("The archive is damaged: it has a directory that is too large.")
        return super().read(size)


def compare(members: Sequence[Member], files: Sequence[File]) -> None:
    """Compare names, order, sizes, and the SHA-256 that were computed. Raises Corrupt."""
    if [member[:2] for member in members] != [(_name(file), file.size) for file in files]:
        raise Corrupt("The archive does not have the files of the job, in their order and with their sizes.")
    for member, file in zip(members, files, strict=True):
        if member.sha256 is not None and file.size and member.sha256 != file.sha256:
            raise Corrupt(f"{member.name} in the archive is not right.")


def _tar_members(tar: tarfile.TarFile, *, hashed: bool, check: Check) -> Iterator[Member]:
    kept: list[object] = vars(tar)["members"]
    while (item := tar.next()) is not None:
        content = tar.extractfile(item) if item.isreg() and not item.issparse() else None
        if content is None:
            raise Corrupt(f"{item.name} in the archive is not a file.")
        yield Member(item.name, item.size, _sha256(content, check) if hashed else None)
        kept.clear()  # 1 kB for each


def _sha256(content: IO[bytes], check: Check) -> str:
    hasher = hashlib.sha256()
    while data := content.read(READ_SIZE):
        hasher.update(data)
        check()
    return hasher.hexdigest()


def _name(file: File) -> str:
    return f"{file.output}/{file.path}"
