"""asyncio and its drop-in loops."""
