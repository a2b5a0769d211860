"""Send responses whose body is in memory."""
