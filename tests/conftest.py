"""What holds for the whole suite."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

from support import secrets


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_ends_what_tests_start() -> None:
    """A shell starts `make test &` with SIGINT ignored, and every process here inherited that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """
    Whatever this suite logs, here or in the servers it starts, holds none of its secrets.

    Fails as an error of the last test.
    """
    path = tmp_path_factory.mktemp("log") / "suite.log"
    handler = logging.FileHandler(path)
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)
    handler.close()
    secrets.check([path, *secrets.LOGS])
