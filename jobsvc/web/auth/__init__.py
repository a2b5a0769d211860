"""Who sends the request."""
