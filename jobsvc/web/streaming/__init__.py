"""Long-lived requests: event streams and long polls."""
