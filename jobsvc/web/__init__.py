"""HTTP: routes, representations, byte serving, rights, problems."""
