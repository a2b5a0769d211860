"""The server, the route table and the middleware. Start reading here."""
