"""Layer 2: the sans-I/O machines. Time is an argument; no socket, clock, task or thread."""
