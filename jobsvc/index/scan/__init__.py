"""Read jobs from disk: periodically, on events and in bulk."""
