"""Handle inotify: watch job directories and report their changes.

In the watcher process (`watcher_process`), `inotify_group` and `root_notify` receive the events. In the
service, `supervisor` reads that process's lines, `watch_events` applies them, and `registry` decides what is
watched.
"""
