"""The `ControlStore` port in memory, put together from its subjects."""

from __future__ import annotations

from holdfast.backends.memory.facets.admitting import Admitting
from holdfast.backends.memory.facets.delivering import Delivering
from holdfast.backends.memory.facets.leasing import Leasing
from holdfast.backends.memory.facets.looking import Looking
from holdfast.backends.memory.facets.making import Making
from holdfast.backends.memory.facets.owning import Owning
from holdfast.backends.memory.facets.telling import Telling
from holdfast.backends.memory.facets.trimming import Trimming

__all__ = ["MemoryControl"]


class MemoryControl(Owning, Admitting, Leasing, Making, Delivering, Looking, Telling, Trimming):
    """See `two_ways` for how it reads and writes."""
