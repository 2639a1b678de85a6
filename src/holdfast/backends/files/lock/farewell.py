"""
How this process leaves: without a claim of ours standing.

- normal end, `sys.exit`, an unhandled exception: what is still held is ended (`Hold.abort`)
  and given back, by `atexit`.  Registered when this module is imported, so that it runs
  after whatever the program registers later.
- SIGTERM, SIGHUP, and SIGINT where it is not Python's own: a handler withdraws the claims,
  restores the default and raises the signal again, so that the exit status is the signal's.
- Ctrl-C by Python's own handler unwinds as KeyboardInterrupt, and needs nothing here.
- `os._exit` (the end of a forked `multiprocessing` child too), SIGKILL and the other
  signals: the claim stays, its owner is dead, and the next waiter replaces it.

**Politeness.**  A handler is installed at the first acquisition in the main thread, and only
where the disposition is the default: what is ignored stays ignored (nohup), a handler that is
there stays, one that is set later wins, `loop.add_signal_handler` among them; if that calls
what was there before, that is this, and the process ends.  Never as process 1, for which the
default is to ignore; and a forked child has the default back.  Python runs handlers between
two instructions of the main thread: while that one is inside a long call of foreign code, a
signal waits for it, as with any handler.

A write under way is waited for WAIT_S.  One that takes longer leaves its claim: it may yet
land, and until we are gone nobody else may write.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

from holdfast.backends.files import fs
from holdfast.backends.files.lock import own

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["WAIT_S", "prepare", "ready"]

log = logging.getLogger("holdfast.write_lock")

WAIT_S: Final = 0.2
POLL_S: Final = 0.001
SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

#: Whether `prepare` has nothing left to do.  Written by the main thread.
ready = False


def prepare() -> None:
    """Install what may be installed, if this is the main thread.  Idempotent."""
    global ready  # noqa: PLW0603
    if threading.current_thread() is not threading.main_thread():
        return
    ready = True
    if fs.table.getpid() == 1:
        return
    with suppress(ValueError):  # Not the main interpreter.
        for number in SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _on_signal)


def _on_signal(number: int, _frame: FrameType | None) -> NoReturn:
    if own.roll.pid == fs.table.getpid():
        own.roll.leaving = threading.get_ident()
        _withdraw_all()
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)
    os._exit(128 + number)  # Something keeps us from dying of it.


def _withdraw_all() -> None:
    """
    All claims, within WAIT_S.

    Takes no mutex that the interrupted code may have, but those that are re-entrant, and
    does not log: it may have been interrupted inside of logging.
    """
    until_s = fs.table.monotonic() + WAIT_S
    while not _all_withdrawn() and fs.table.monotonic() < until_s:
        fs.table.sleep(POLL_S)


def _all_withdrawn() -> bool:
    us, done = threading.get_ident(), True
    for claim, held in list(own.roll.claims.items()):
        if not isinstance(held, int):
            done &= held.forsake()
            continue
        # Its thread will have published it, and made a hold of it, in a moment; if that
        # is the one that was interrupted, never.
        done &= held == us
        if held == us:
            with suppress(OSError):
                claim.withdraw()
    return done


def _at_exit() -> None:
    """As a signal, but in good order: others may still want these locks."""
    if own.roll.pid != fs.table.getpid():
        return
    for hold in own.holds():
        log.warning("%s: still held as the process ends; it is given back", hold.path)
        hold.abort("the process is ending")
    if own.roll.claims:
        _withdraw_all()


atexit.register(_at_exit)


def _start_afresh() -> None:
    global ready  # noqa: PLW0603
    if not ready:
        return
    ready = False
    with suppress(ValueError):
        for number in SIGNALS:
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_start_afresh)
