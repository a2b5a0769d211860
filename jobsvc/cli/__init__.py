"""The jobsvc command."""
