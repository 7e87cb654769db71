"""Layer 1: parsing and building bytes, without sockets, clocks, tasks or threads."""
