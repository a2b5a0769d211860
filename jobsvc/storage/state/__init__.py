"""Read and write the files in the state directory."""
