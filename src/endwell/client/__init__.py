"""Connecting to a server, and coming back."""
