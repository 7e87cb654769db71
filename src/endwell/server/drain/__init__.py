"""Stops a server without losing messages: schedule, execution, report."""
