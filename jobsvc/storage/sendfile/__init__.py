"""Send open files to sockets."""
