"""The jobs in memory, and how current each of them is."""
