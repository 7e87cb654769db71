"""A serving process, alone or as one of several workers: signals, supervision, load balancing."""
