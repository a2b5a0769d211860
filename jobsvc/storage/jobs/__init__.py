"""Read job directories. Blocking code that runs in threads."""
