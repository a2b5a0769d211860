"""What to send and what responses mean, without I/O: shared by Client and AsyncClient."""
