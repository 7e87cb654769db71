"""Layer 2: the sans-I/O state machines. Time is an argument; no sockets, clocks, tasks or threads."""
