"""Download files: resumable, in parallel, verified. Blocking; AsyncClient runs it in a thread."""
