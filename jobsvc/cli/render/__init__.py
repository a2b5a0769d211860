"""Commands for the farm, which write job directories."""
