"""inotify: the watcher process, its supervisor, and which directories are watched."""
