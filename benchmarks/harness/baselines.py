"""The servers that jobsvc is compared with.

`python -m benchmarks.harness.baselines bare|fields|file PATH [--loop LOOP]`

bare: aiohttp answering every job with the bytes in PATH, and nothing else. fields: the same, with as many
header fields as jobsvc sends. file: aiohttp's own FileResponse of PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

FIELDS: Final = {
    "ETag": '"0123456789abcdef01234567"',
    "Cache-Control": "private, no-cache",
    "Age": "0",
    "X-Content-Type-Options": "nosniff",
    "X-Request-Id": "0123456789abcdef",
    "RateLimit-Policy": '"status";q=999999999;w=1',
    "RateLimit": '"status";r=999999998;t=1',
}


def application(what: str, path: Path) -> web.Application:
    """Build one of the three applications."""
    app = web.Application()
    body = path.read_bytes() if what != "file" else b""

    async def bare(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def fields(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers=FIELDS, content_type="application/json")

    async def file(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    handlers: dict[str, Handler] = {"bare": bare, "fields": fields}
    address = "/api/jobs/{id}/download" if what == "file" else "/api/jobs/{id}"
    app.router.add_get(address, handlers.get(what, file))
    return app


async def serve(app: web.Application) -> None:
    """Serve on a free port, which is printed to standard error, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    host, port = runner.addresses[0][:2]
    print(orjson.dumps({"address": f"http://{host}:{port}"}).decode(), file=sys.stderr, flush=True)
    await stop.wait()
    await runner.cleanup()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.harness.baselines")
    parser.add_argument("what", choices=("bare", "fields", "file"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    arguments = parser.parse_args()
    app = application(arguments.what, arguments.path)
    if arguments.loop == "uvloop":
        import uvloop  # noqa: PLC0415 - not on every platform

        uvloop.run(serve(app))
    else:
        asyncio.run(serve(app))


if __name__ == "__main__":
    main()
