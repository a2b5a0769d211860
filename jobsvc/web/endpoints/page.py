"""`GET /` and `GET /ui/{version}/{path}`: the web page, from the files in `jobsvc/web/page/`.

The URLs of its modules and styles contain a version, the hash of all files, so that browsers keep them and
ask only for `/`. Another version, as during an upgrade of replicas, gets the current file, which is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

from aiohttp import web

from jobsvc.web import query_params
from jobsvc.web.jobs.representation import entity_tag
from jobsvc.web.responses import json_response

CONTENT_TYPES: Final = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
"""The kinds of files that are served, besides the index."""
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types jobsvc"
)
"""Content-Security-Policy (CSP level 3) of the page: nothing from elsewhere, no script in the document."""
INDEX: Final = "index.html"

# A worker has the policy of its own script.
_COMMON: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_INDEX_FIELDS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    **_COMMON,
}
_KEPT: Final = "public, max-age=31536000, immutable"


class PageEndpoint:
    """Handlers of the page. The files are the same for everyone, so they need no token."""

    def __init__(self) -> None:
        """Read all files into memory."""
        self._files = {path: file.read_bytes() for path, file in _walk(files("jobsvc.web.page"), "")}
        everything = b"".join(path.encode() + b"\0" + body for path, body in sorted(self._files.items()))
        self.version: Final = sha256(everything).hexdigest()[:12]
        index = self._files.pop(INDEX).decode()
        links = "\n".join(_link(path) for path in sorted(self._files) if not _is_loaded_later(path))
        self._index = index.replace("{links}", links).replace("{version}", self.version).encode()
        self._index_fields = {"ETag": entity_tag(self._index), **_INDEX_FIELDS}
        self._fields = {path: _file_fields(path, body) for path, body in self._files.items()}

    async def index(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD of `/`; its query is read by the page alone."""
        return json_response.respond(request, self._index, self._index_fields)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Handle GET and HEAD of a file."""
        query_params.reject_unknown(request.query)
        path = request.match_info["path"]
        body = self._files.get(path)
        if body is None:
            raise web.HTTPNotFound
        is_current = request.match_info["version"] == self.version
        fields = {**self._fields[path], "Cache-Control": _KEPT if is_current else "no-cache"}
        return json_response.respond(request, body, fields)


def _file_fields(path: str, body: bytes) -> dict[str, str]:
    content_type = CONTENT_TYPES["." + path.rpartition(".")[2]]
    return {"ETag": entity_tag(body), "Content-Type": content_type, **_COMMON}


def _is_loaded_later(path: str) -> bool:
    """Return whether `main.js` imports a module only when a job or its log is to be shown."""
    return path.startswith(("job/", "log/")) and not path.endswith(".css")


def _link(path: str) -> str:
    """Return the link to a file in the document. Browsers fetch all modules with a link at once."""
    kind = {".css": "stylesheet", ".svg": "icon"}.get("." + path.rpartition(".")[2], "modulepreload")
    return f'<link rel="{kind}" href="ui/{{version}}/{path}">'


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    """Return the paths of the files that are served."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.name == INDEX or "." + entry.name.rpartition(".")[2] in CONTENT_TYPES:
            yield prefix + entry.name, entry
