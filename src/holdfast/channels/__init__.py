"""Channels: where committed replies are delivered to, and where messages come from."""
