"""Read models that the catalogue's changes keep up to date."""
