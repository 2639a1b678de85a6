"""What holds for the whole suite."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

from support import secrets


@pytest.fixture(scope="session", autouse=True)
def signals_end_what_tests_start() -> None:
    """
    `make test &` and `nohup make test` begin with signals ignored, and whatever is started
    inherits that.  A handler is not inherited.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


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
