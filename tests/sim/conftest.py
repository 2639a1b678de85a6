"""What simulated runs need of the process that they run in."""

from __future__ import annotations

import pytest

from holdfast.backends.files.lock import watchdog
from support.locks import send_home


@pytest.fixture(autouse=True)
def no_real_thread_reads_the_clock() -> None:
    """A watchdog of tests before would ask the simulated one, and every question takes time."""
    send_home(watchdog.dog)
