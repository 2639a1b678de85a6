"""Asyncio shells: they perform effects and decide nothing."""
