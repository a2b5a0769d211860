"""Child processes of the index."""
