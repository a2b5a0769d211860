"""Authentication of requests: bearer tokens, signed links and client addresses."""
