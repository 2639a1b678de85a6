"""The command line: one file a command group, loaded when its command is given."""

from __future__ import annotations

from holdfast.cli.app import main

__all__ = ["main"]
