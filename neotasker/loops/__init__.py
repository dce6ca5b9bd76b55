"""Aloops, and the way into any asyncio loop."""
