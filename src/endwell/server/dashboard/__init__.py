"""The dashboard: what an operator sees of a server, over a page or in a terminal."""
