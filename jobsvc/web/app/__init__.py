"""The server, the route table, the middleware. Start here."""
