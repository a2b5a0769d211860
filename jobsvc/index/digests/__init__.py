"""SHA-256 digests of outputs, computed in the background."""
