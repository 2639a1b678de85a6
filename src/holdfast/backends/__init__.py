"""Stores.  Each implements the ports; none imports `_runtime`, nor another store."""
