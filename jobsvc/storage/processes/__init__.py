"""Child processes that work beside the service."""
