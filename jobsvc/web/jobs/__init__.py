"""Look up jobs for a request, open their files, render them as JSON."""
