"""The engine: the only layer that owns sockets and the event loop."""
