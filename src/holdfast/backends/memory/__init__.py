"""
A store in this process's memory: for tests, for trying things out, for the simulator.

Several `MemoryStore`s over one `World` behave like several processes with one store between
them.  All of it is gone with the process; nothing else is promised less than on files.
"""

from __future__ import annotations

from holdfast.backends.memory.store import MemoryStore
from holdfast.backends.memory.world import World

__all__ = ["MemoryStore", "World"]
