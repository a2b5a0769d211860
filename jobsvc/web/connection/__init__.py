"""HTTP/1.1 (RFC 9112) on top of aiohttp's RequestHandler, and the fast path."""
