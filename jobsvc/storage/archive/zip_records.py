"""The records of a zip archive whose members are stored uncompressed (APPNOTE 6.3.10), with zip64. Pure.

Names are UTF-8. The DOS time of a file has no time zone and is given in UTC. A file also has the Unix time of
its last modification, if that fits.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Final, NamedTuple

from jobsvc.storage.archive.tar_header import MODE

MAX_32: Final = 0xFFFFFFFF
MAX_16: Final = 0xFFFF
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_TIME: Final = datetime(1980, 1, 1, tzinfo=UTC)
_LAST_TIME: Final = datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC)
_MAX_UNIX_TIME: Final = 2**31 - 1

_LOCAL: Final = Struct("<IHHHHHIIIHH")
_CENTRAL: Final = Struct("<IHHHHHHIIIHHHHHII")
_END_64: Final = Struct("<IQHHIIQQQQ")
_LOCATOR_64: Final = Struct("<IIQI")
_END: Final = Struct("<IHHHHIIH")
_DESCRIPTOR: Final = Struct("<III")
_DESCRIPTOR_64: Final = Struct("<IIQQ")
_EXTRA: Final = Struct("<HH")

_LOCAL_SIGNATURE: Final = 0x04034B50
_CENTRAL_SIGNATURE: Final = 0x02014B50
_DESCRIPTOR_SIGNATURE: Final = 0x08074B50
_END_64_SIGNATURE: Final = 0x06064B50
_LOCATOR_64_SIGNATURE: Final = 0x07064B50
_END_SIGNATURE: Final = 0x06054B50

_ZIP_64_FIELD: Final = 0x0001
_TIME_FIELD: Final = 0x5455
_PADDING_FIELD: Final = 0xD935
"""The extra field that Android's zipalign pads with; readers ignore it."""
_HAS_DESCRIPTOR: Final = 0x0008
_UTF_8: Final = 0x0800
_VERSION: Final = 20
_VERSION_64: Final = 45
_UNIX: Final = 3 << 8
_REGULAR_FILE: Final = 0o100000


class Member(NamedTuple):
    """What the records of one file contain."""

    path: bytes
    """In UTF-8."""
    size: int
    mtime: int
    """Seconds since the epoch."""
    reserves_descriptor: bool
    """Whether there is room for a descriptor behind the content, or as much padding in the header."""
    has_descriptor: bool
    """Whether the CRC-32 is in that descriptor, and 0 in the header."""

    @property
    def is_64(self) -> bool:
        """Whether the size needs 64 bits."""
        return self.size >= MAX_32


def local_header(member: Member, crc: int) -> bytes:
    """Return the record in front of a file's content; the CRC-32 is in it unless a descriptor follows."""
    size = MAX_32 if member.is_64 else member.size
    extra = _field(_ZIP_64_FIELD, Struct("<QQ").pack(member.size, member.size)) if member.is_64 else b""
    extra += _unix_time(member.mtime)
    if member.reserves_descriptor and not member.has_descriptor:
        extra += _field(_PADDING_FIELD, bytes(descriptor_length(member) - _EXTRA.size))
    shown_crc = 0 if member.has_descriptor else crc
    return (
        _LOCAL.pack(
            _LOCAL_SIGNATURE, _version(member.is_64), _flags(member), 0, *dos_time(member.mtime), shown_crc,
            size, size, len(member.path), len(extra),
        )
        + member.path
        + extra
    )  # fmt: skip


def descriptor(member: Member, crc: int) -> bytes:
    """Return the record behind a file's content, with the CRC-32."""
    if member.is_64:
        return _DESCRIPTOR_64.pack(_DESCRIPTOR_SIGNATURE, crc, member.size, member.size)
    return _DESCRIPTOR.pack(_DESCRIPTOR_SIGNATURE, crc, member.size) + member.size.to_bytes(4, "little")


def descriptor_length(member: Member) -> int:
    """Return the length of `descriptor`."""
    return _DESCRIPTOR_64.size if member.is_64 else _DESCRIPTOR.size + 4


def local_length(member: Member) -> int:
    """Return the length of header and descriptor: of the records beside a file's content."""
    extra = _EXTRA.size + 16 if member.is_64 else 0
    reserved = descriptor_length(member) if member.reserves_descriptor else 0
    return _LOCAL.size + len(member.path) + extra + len(_unix_time(member.mtime)) + reserved


def central_header(member: Member, crc: int, offset: int) -> bytes:
    """Return the record of a file in the directory at the end; `offset` is that of its local header."""
    large = [value for value in (*[member.size] * 2, offset) if value >= MAX_32]
    extra = b"".join(value.to_bytes(8, "little") for value in large)
    extra = (_field(_ZIP_64_FIELD, extra) if extra else b"") + _unix_time(member.mtime)
    size = min(member.size, MAX_32)
    version = _version(bool(large))
    return (
        _CENTRAL.pack(
            _CENTRAL_SIGNATURE, _UNIX | version, version, _flags(member), 0, *dos_time(member.mtime), crc,
            size, size, len(member.path), len(extra), 0, 0, 0, (_REGULAR_FILE | MODE) << 16,
            min(offset, MAX_32),
        )
        + member.path
        + extra
    )  # fmt: skip


def central_length(member: Member, offset: int) -> int:
    """Return the length of `central_header`."""
    large = 2 * (member.size >= MAX_32) + (offset >= MAX_32)
    extra = _EXTRA.size + 8 * large if large else 0
    return _CENTRAL.size + len(member.path) + extra + len(_unix_time(member.mtime))


def end_records(count: int, start: int, length: int) -> bytes:
    """Return the end of an archive with `count` files, whose directory has this start and this length."""
    large = b""
    if count >= MAX_16 or start >= MAX_32 or length >= MAX_32:
        large = _END_64.pack(
            _END_64_SIGNATURE, _END_64.size - 12, _UNIX | _VERSION_64, _VERSION_64, 0, 0, count, count,
            length, start
        ) + _LOCATOR_64.pack(_LOCATOR_64_SIGNATURE, 0, start + length, 1)  # fmt: skip
    shown = min(count, MAX_16)
    return large + _END.pack(_END_SIGNATURE, 0, 0, shown, shown, min(length, MAX_32), min(start, MAX_32), 0)


def dos_time(mtime: int) -> tuple[int, int]:
    """Return time and date as in MS-DOS, in UTC, from 1980 to 2107; the time has steps of two seconds."""
    first, last = (int((limit - _EPOCH).total_seconds()) for limit in (_FIRST_TIME, _LAST_TIME))
    at = _EPOCH + timedelta(seconds=min(max(mtime, first), last))
    return at.hour << 11 | at.minute << 5 | at.second // 2, (at.year - 1980) << 9 | at.month << 5 | at.day


def _unix_time(mtime: int) -> bytes:
    if not 0 <= mtime <= _MAX_UNIX_TIME:
        return b""
    return _field(_TIME_FIELD, b"\1" + mtime.to_bytes(4, "little"))


def _field(kind: int, content: bytes) -> bytes:
    return _EXTRA.pack(kind, len(content)) + content


def _flags(member: Member) -> int:
    return _UTF_8 | (_HAS_DESCRIPTOR if member.has_descriptor else 0)


def _version(is_64: bool) -> int:  # noqa: FBT001 - private
    return _VERSION_64 if is_64 else _VERSION
