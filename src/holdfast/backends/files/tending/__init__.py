"""Repairing, importing, exporting and deleting sessions."""
