"""HTTP/1.1 (RFC 9112) on top of aiohttp's RequestHandler, and the fast path.

Attributes that are added to aiohttp's classes start with `_jobsvc_`, so that they cannot clash with its own.
"""
