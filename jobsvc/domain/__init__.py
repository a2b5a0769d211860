"""Jobs, access rights and errors. No I/O, no clock."""
