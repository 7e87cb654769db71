"""One process that serves, alone or as one of several workers: signals, supervision, balance."""
