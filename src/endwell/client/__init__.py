"""The asyncio client: connecting and reconnecting."""
