"""Commands that use a running service. They import nothing of the service itself."""
