"""Read models of the catalogue, updated by its changes."""
