"""How tests start Chromium: without a display, a sandbox, a proxy, or requests of its own."""

from __future__ import annotations

import shutil
from typing import Final

FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--no-proxy-server", "--mute-audio"),
    "--autoplay-policy=no-user-gesture-required",
)


def find() -> str | None:
    """Return the path of Debian's Chromium; None without."""
    return shutil.which("chromium")
