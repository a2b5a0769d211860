"""Child processes of the service."""
