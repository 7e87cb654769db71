"""Layer 1: functions over bytes; no socket, clock, task or thread."""
