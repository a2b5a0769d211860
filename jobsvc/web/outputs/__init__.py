"""Routes that serve the outputs of jobs: one file, the list of files, archives, and links to them."""
