"""Watch job directories with inotify: the watcher process, its supervisor, and the registry of watches."""
