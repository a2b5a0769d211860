"""Read job directories, write the state directory; the event loop calls this through StorageExecutor."""
