"""Authentication of requests: bearer tokens (`bearer`), signed links and client addresses."""
