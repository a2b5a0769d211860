"""Send requests: over sockets for Client, over aiohttp for AsyncClient."""
