"""The `ControlStore` port on a state directory, put together from its subjects."""

from __future__ import annotations

from holdfast.backends.files.control.facets.admitting import Admitting
from holdfast.backends.files.control.facets.delivering import Delivering
from holdfast.backends.files.control.facets.leasing import Leasing
from holdfast.backends.files.control.facets.looking import Looking
from holdfast.backends.files.control.facets.making import Making
from holdfast.backends.files.control.facets.owning import Owning
from holdfast.backends.files.control.facets.telling import Telling
from holdfast.backends.files.control.facets.trimming import Trimming
from holdfast.backends.files.control.two_ways import DATABASE, GATE

__all__ = ["DATABASE", "GATE", "FilesControl"]


class FilesControl(Owning, Admitting, Leasing, Making, Delivering, Looking, Telling, Trimming):
    """See `two_ways` for how it reads and writes."""
