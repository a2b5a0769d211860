"""What the service manager and the process agree on: inherited sockets, notifications, reloading."""
