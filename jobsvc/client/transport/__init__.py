"""Send requests: over http.client for Client, over aiohttp for AsyncClient."""
