"""``endwell top``: the dashboard of a server in a terminal."""
