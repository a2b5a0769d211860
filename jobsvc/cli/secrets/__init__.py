"""Commands that change tokens, links and the secrets directory."""
