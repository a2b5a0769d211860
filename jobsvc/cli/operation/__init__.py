"""Commands for the service's operator and for the programs that supervise it."""
