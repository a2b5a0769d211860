"""Say in one line what a download resulted in: size, seconds, rate, and whether it was verified."""

from __future__ import annotations

from jobsvc.cli.client.progress.units import format_duration, format_rate, format_size
from jobsvc.cli.client.terminal import printable
from jobsvc.client.models import Downloaded


class Summary:
    """Counts downloaded files; any number of them takes the same memory."""

    def __init__(self, *, verify: bool = True, digest_length: int | None = None) -> None:
        """`verify`: whether each file was verified, as a download is that returns.

        `digest_length`: how many digits of a digest are shown, None for all.
        """
        self._verify = verify
        self._digest_length = digest_length
        self._latest: Downloaded | None = None
        self._new = 0
        self._skipped = 0
        self._size = 0
        self._earlier = 0

    def add(self, file: Downloaded) -> None:
        """Count a file."""
        self._latest = file
        if file.skipped:
            self._skipped += 1
            return
        self._new += 1
        self._size += file.size
        self._earlier += file.resumed_from

    def text(self, seconds: float) -> str:
        """Describe the files; `seconds` is the time that all of them took."""
        if self._latest is not None and self._new + self._skipped == 1:
            return f"{_name(self._latest)}: {self._one(self._latest, seconds)}"
        return self._many(seconds)

    def _one(self, file: Downloaded, seconds: float) -> str:
        if file.skipped:
            return "exists already, skipped"
        if not self._verify:
            verified = "not verified"
        elif file.sha256 is None:
            verified = "each of its files verified by its sha256"  # an archive
        else:
            verified = f"verified sha256 {file.sha256[: self._digest_length]}"
        return f"{self._amount(seconds)}, {verified}"

    def _many(self, seconds: float) -> str:
        if not self._new and not self._skipped:
            return "no new files"
        parts = [f"{self._new:,} {'file' if self._new == 1 else 'files'}"]
        if self._new:
            verified = "each verified by its sha256" if self._verify else "not verified"
            parts += [self._amount(seconds), verified]
        if self._skipped:
            reason = "it exists" if self._skipped == 1 else "they exist"
            parts.append(f"{self._skipped:,} skipped because {reason} already")
        return ", ".join(parts)

    def _amount(self, seconds: float) -> str:
        """Describe the bytes of this run and of earlier ones."""
        text = f"{format_size(self._size)} in {format_duration(seconds)}"
        if self._earlier:
            text += f" ({format_size(self._earlier)} were there already)"
        if seconds > 0 and self._size > self._earlier:
            text += f", {format_rate((self._size - self._earlier) / seconds)}"
        return text


def _name(file: Downloaded) -> str:
    return "standard output" if str(file.path) == "-" else printable(file.path.name)
