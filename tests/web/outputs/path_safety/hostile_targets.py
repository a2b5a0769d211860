"""Request targets that try to lead out of the files of a job: spellings of paths, and a client for them."""

from __future__ import annotations

import os
import socket
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Self
from urllib.parse import quote, quote_from_bytes

from hypothesis import strategies as st

TIMEOUT_S: Final = 30.0
BATCH: Final = 32
"""Requests that are sent before their responses are read."""
_READ_SIZE: Final = 1 << 18

SPELLINGS: Final[Mapping[str, Callable[[str], str]]] = {
    "same": lambda path: path,
    "dot": lambda path: f"./{path}",
    "dots": lambda path: path.replace("/", "/./"),
    "up": lambda path: f"b/../{path}",
    "climb": lambda path: f"../{path}",
    "climb-far": lambda path: "../" * 8 + path,
    "climb-inside": lambda path: f"a/../../{path}",
    "slash": lambda path: f"/{path}",
    "slashes": lambda path: path.replace("/", "//"),
    "slash-after": lambda path: f"{path}/",
    "dot-after": lambda path: f"{path}/.",
    "nul-after": lambda path: f"{path}\0",
    "nul-before-suffix": lambda path: f"{path}\0.exr",
    "nul": lambda path: path.replace("/", "\0"),
    "backslash": lambda path: path.replace("/", "\\"),
    "case": lambda path: path.swapcase(),
    "composed": lambda path: unicodedata.normalize("NFC", path),
    "decomposed": lambda path: unicodedata.normalize("NFD", path),
    "compatible": lambda path: path.replace(".", "\uff0e").replace("/", "\uff0f"),
    "blank": lambda path: f"{path} ",
    "stream": lambda path: f"{path}::$DATA",
    "parameter": lambda path: path.replace("/", ";x=1/"),
    "newline": lambda path: f"{path}\n",
    "proc": lambda path: f"../../../../../../../../proc/self/root/{path}",
}
"""What is done to the path before it is encoded."""


def _percent(data: bytes, characters: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte if byte in characters else bytes([byte]) for byte in data)


ENCODINGS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "quoted": lambda data: quote_from_bytes(data, safe="/").encode(),
    "segment": lambda data: quote_from_bytes(data, safe="").encode(),
    "raw": lambda data: data,
    "all": lambda data: b"".join(b"%%%02x" % byte for byte in data),
    "twice": lambda data: quote(quote_from_bytes(data, safe=""), safe="").encode(),
    "dots": lambda data: quote_from_bytes(data, safe="/").encode().replace(b".", b"%2e"),
    "slashes": lambda data: quote_from_bytes(data, safe="/").encode().replace(b"/", b"%2F"),
    "overlong": lambda data: _percent(data, b"%\0 ").replace(b".", b"%c0%ae").replace(b"/", b"%c0%af"),
    "utf-16": lambda data: _percent(data, b"%\0 ").replace(b".", b"%u002e").replace(b"/", b"%u2215"),
    "incomplete": lambda data: quote_from_bytes(data, safe="/").encode() + b"%2",
    "plus": lambda data: quote_from_bytes(data, safe="/").encode().replace(b"%20", b"+"),
}
"""How the path becomes bytes."""

FORMS: Final[Mapping[str, str]] = {
    "file": "/api/jobs/{job}/files/{output}/{path}",
    "of-other": "/api/jobs/{other}/files/{output}/{path}",
    "as-output": "/api/jobs/{job}/files/{path}",
    "around": "/api/jobs/{other}/../{job}/files/{output}/{path}",
    "encoded-slash": "/api/jobs/{job}/files%2F{output}%2F{path}",
    "encoded-up": "/api/jobs/{other}%2F..%2F{job}/files/{output}/{path}",
    "output-up": "/api/jobs/{job}/files/{output}%2F..%2F..%2F{path}",
    "job-up": "/api/jobs/{job}%2F{path}/download",
    "absolute": "http://jobs.example/api/jobs/{job}/files/{output}/{path}",
    "two-slashes": "//api/jobs/{job}/files/{output}//{path}",
    "fragment": "/api/jobs/{job}/files/{output}#/{path}",
    "query": "/api/jobs/{job}/files/{output}?path={path}",
    "versioned": "/api/jobs/{job}/files/{output}/{path}?version=",
    "download": "/api/jobs/{job}/download/{path}",
    "log": "/api/jobs/{job}/logs?path={path}",
    "page": "/api/jobs/{job}/files?output={path}",
}
"""Targets that contain the path."""

RANGES: Final = ("", "", "Range: bytes=3-40\r\n", "Range: bytes=-31\r\n")


def get(token: str, target: str) -> bytes:
    """Return a GET."""
    return f"GET {target} HTTP/1.1\r\nHost: jobs.example\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


class Recipe(NamedTuple):
    """How a request is made from a path."""

    spelling: str
    encoding: str
    form: str
    range_line: str

    def request(self, token: str, path: str, **names: str) -> bytes:
        """Return a GET."""
        data = ENCODINGS[self.encoding](os.fsencode(SPELLINGS[self.spelling](path)))
        before, _, after = FORMS[self.form].partition("{path}")
        target = before.format(**names).encode() + (
            data + after.encode() if "{path}" in FORMS[self.form] else b""
        )
        head = f" HTTP/1.1\r\nHost: jobs.example\r\nAuthorization: Bearer {token}\r\n{self.range_line}\r\n"
        return b"GET " + target + head.encode()


PLAIN: Final = Recipe("same", "quoted", "file", "")

a_recipe = st.builds(
    Recipe,
    st.sampled_from(list(SPELLINGS)),
    st.sampled_from(list(ENCODINGS)),
    # Most requests are for files.
    st.sampled_from(["file"] * 10 + list(FORMS)),
    st.sampled_from(RANGES),
)


class Answer(NamedTuple):
    """A response, or as much of it as arrived."""

    status: int
    head: bytes
    body: bytes

    def field(self, name: bytes) -> bytes:
        """Return the value of a header field; empty if there is none."""
        return self.head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


class Client:
    """Sends requests one after the other over connections that it keeps as long as the service does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def answers(self, requests: Sequence[bytes]) -> Iterator[tuple[int, Answer]]:
        """Yield each response with the index of its request; those behind a closed connection are sent again.

        A malformed request can have no response, or more than one.
        """
        done = 0
        while done < len(requests):
            batch, is_new, answered = requests[done : done + BATCH], self._socket is None, 0
            with suppress(ConnectionError):
                self._connected().sendall(b"".join(batch))
            while answered < len(batch) and (answer := self._read()) is not None:
                yield done + answered, answer
                answered += 1
            if answered < len(batch):
                self._close()
                answered += answered == 0 and is_new
            done += answered

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_S)
            self._received = b""
        return self._socket

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _read(self) -> Answer | None:
        """Read a response; None if the connection ended before its head was complete."""
        while b"\r\n\r\n" not in self._received:
            if not self._receive():
                return None
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        answer = Answer(int(head.split(b" ")[1]), head + b"\r\n", b"")
        length = int(answer.field(b"Content-Length") or 0)
        while len(self._received) < length and self._receive():
            pass
        body, self._received = self._received[:length], self._received[length:]
        return answer._replace(body=body)

    def _receive(self) -> bool:
        try:
            data = self._connected().recv(_READ_SIZE)
        except ConnectionError:
            return False
        self._received += data
        return bool(data)
