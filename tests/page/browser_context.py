"""Browser profiles of tests: signed in, on a screen of a kind, and watched for problems."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, WebError

Problems: TypeAlias = list[str]
"""What was wrong on a page, as text. Chromium writes violations of a policy to the console, as errors."""


@dataclass(frozen=True, slots=True)
class Screen:
    """Size in CSS pixels, and what the person who looks prefers."""

    width: int = 1440
    height: int = 900
    scheme: Literal["light", "dark"] = "light"
    motion: Literal["no-preference", "reduce"] = "reduce"


DESKTOP: Final = Screen()
DARK: Final = Screen(scheme="dark")
PHONE: Final = Screen(360, 740)

_FAILED_LOAD: Final = "Failed to load resource:"
_INTERNAL_ERROR: Final = "status of 500"


@asynccontextmanager
async def new_context(
    browser: Browser, port: int, token: str | None, screen: Screen, problems: Problems
) -> AsyncIterator[BrowserContext]:
    """Create a profile during a block, signed in if there is a token; fill `problems` from its pages."""
    context = await browser.new_context(
        base_url=f"http://127.0.0.1:{port}/",
        viewport={"width": screen.width, "height": screen.height},
        color_scheme=screen.scheme,
        reduced_motion=screen.motion,
        locale="en-GB",
        timezone_id="UTC",
    )
    try:
        context.on("console", lambda message: problems.extend(_errors(message)))
        context.on("weberror", lambda error: problems.append(_text_of(error)))
        if token is not None:
            await sign_in(context, port, token)
        yield context
    finally:
        await context.close()


async def sign_in(context: BrowserContext, port: int, token: str) -> None:
    """Exchange a token for the session cookie, as the page does."""
    fields = {"Authorization": f"Bearer {token}", "Origin": f"http://127.0.0.1:{port}"}
    response = await context.request.post("ui/session", headers=fields)
    assert response.ok, await response.text()


def _errors(message: ConsoleMessage) -> list[str]:
    """Return a console message if it is an error of the page.

    Chromium writes one for every response with an error status; the page handles those of the API.
    """
    if message.type != "error":
        return []
    url = message.location["url"]
    is_of_api = urlsplit(url).path.startswith(("/api/", "/ui/session"))
    if message.text.startswith(_FAILED_LOAD) and is_of_api and _INTERNAL_ERROR not in message.text:
        return []
    return [f"{url}: {message.text}"]


def _text_of(error: WebError) -> str:
    return error.error.stack or str(error.error)
