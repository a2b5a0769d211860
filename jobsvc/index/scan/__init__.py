"""Read jobs from disk: periodically, on events, in bulk."""
