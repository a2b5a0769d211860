"""Show the progress of downloads on standard error: a live bar on a terminal, otherwise plain lines."""
