"""
A process that ends while it holds the write lock of a transcript.  Not a test.

    python _exit_child.py MODE PATH        each mode is a function below
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time

from holdfast import _points
from holdfast.backends.files.lock import own
from holdfast.backends.files.lock.write_lock import Hold, WriteLock

_told, _tells = os.pipe()
os.set_blocking(_tells, False)
signal.set_wakeup_fd(_tells)


def say(*words: object) -> None:
    print(*words, flush=True)


def wait_for_go() -> None:
    sys.stdin.readline()


def pause() -> None:
    """Until a signal was handled, though it came before this was called."""
    os.read(_told, 1)


def hold(path: str) -> Hold:
    held = WriteLock(path, lane="user", run_id="child").acquire_sync()
    say("held")
    return held


# ------------------------------------------------------------- ends of its own accord


def falls_off_the_end(path: str) -> None:
    setattr(sys, "kept", hold(path))  # noqa: B010


def exits_with_3(path: str) -> None:
    hold(path)
    sys.exit(3)


def raises(path: str) -> None:
    hold(path)
    raise ValueError("unhandled")


def exits_hard(path: str) -> None:
    hold(path)
    os._exit(4)


def writes_in_its_own_last_words(path: str) -> None:
    import atexit

    held = hold(path)
    atexit.register(lambda: held.append(b"last words\n", sync=False))


# -------------------------------------------------------------------- ends by a signal


def pauses(path: str) -> None:
    held = hold(path)
    pause()
    held.release()
    say("went on")


def pauses_with_default_sigint(path: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    pauses(path)


def pauses_with_ignored_sighup(path: str) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    held = hold(path)
    wait_for_go()
    held.release()
    say("went on")


def handles(path: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: say("handled"))
    pauses(path)


def handles_later(path: str) -> None:
    held = hold(path)
    signal.signal(signal.SIGTERM, lambda *_: say("handled"))
    say("ready")
    pause()
    held.append(b"{}\n", sync=False)
    held.release()
    say("went on")


def handles_and_calls_what_was_there(path: str) -> None:
    held = hold(path)
    before = signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: object) -> None:
        say("handled")
        before(number, frame)  # type: ignore[operator, misc, arg-type]

    signal.signal(signal.SIGTERM, handle)
    say("ready")
    pause()
    held.release()


def on_a_loop(path: str) -> None:
    async def run() -> None:
        async with WriteLock(path):
            say("held")
            await asyncio.Event().wait()

    asyncio.run(run())


def on_a_loop_that_handles(path: str) -> None:
    async def run() -> None:
        asked = asyncio.Event()
        async with WriteLock(path) as held:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
            say("held")
            await asked.wait()
            held.append(b"{}\n", sync=False)
        say("went on")

    asyncio.run(run())


def appends(path: str) -> None:
    WriteLock(path).acquire_sync().release()  # So that the handlers are there.
    say("held")
    append_for_ever(path)


def append_for_ever(path: str) -> None:
    lock, n = WriteLock(path), 0
    while True:
        with lock as held:
            held.append(b'{"n":%d}\n' % n, sync=n % 10 == 0)
        n += 1


def appends_in_threads(path: str) -> None:
    WriteLock(path).acquire_sync().release()  # Only the main thread may install them.
    for _ in range(3):
        threading.Thread(target=append_for_ever, args=(path,), daemon=True).start()
    appends(path)


def appends_on_a_loop(path: str) -> None:
    lock = WriteLock(path)

    async def work() -> None:
        while True:
            async with lock as held:
                held.append(b"{}\n", sync=False)
            await asyncio.sleep(0)

    async def run() -> None:
        WriteLock(path).acquire_sync().release()  # So that the handlers are there.
        say("held")
        await asyncio.gather(*[work() for _ in range(4)])

    asyncio.run(run())


def writes_while_it_dies(path: str, ends: str) -> None:
    """Another thread is in the middle of a write; it `ends` soon, or never."""
    held = WriteLock(path).acquire_sync()
    WriteLock(path + ".other").acquire_sync().release()  # So that the handler is there.

    def hook() -> None:
        say("held")
        while ends == "never" or not own.roll.leaving:
            time.sleep(0.001)

    _points.install("append.written", hook)
    threading.Thread(target=held.append, args=(b"{}\n",), kwargs={"sync": False}).start()
    while True:
        pause()


# ------------------------------------------------------------------------------- forks


def forks(path: str, end: str) -> None:
    """The child is ended by its own exit, or by a signal; then it says so."""
    held = hold(path)
    child = os.fork()
    if child == 0:
        if end == "exit":
            sys.exit(0)
        if end == "own":
            with WriteLock(path + ".own", max_hold_ms=30) as watched:
                while watched.aborted is None:
                    time.sleep(0.001)
            WriteLock(path + ".own").acquire_sync()
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    _, status = os.waitpid(child, 0)
    say("child", os.waitstatus_to_exitcode(status))
    wait_for_go()
    held.append(b"still ours\n", sync=False)
    held.release()
    say("went on")


def forks_in_c(path: str) -> None:
    """None of Python's hooks runs: the child has the descriptors, and ends normally."""
    held = hold(path)
    libc = ctypes.PyDLL(None)
    child = libc.fork()
    if child == 0:
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    say("child", os.waitstatus_to_exitcode(status))
    wait_for_go()
    held.append(b"still ours\n", sync=False)
    held.release()
    say("went on")


def gives_its_descriptor_away(path: str) -> None:
    import subprocess

    held = hold(path)
    # Not on our standard input: it would take the word that is meant for us.  Bounded,
    # because it is to outlive us, and whoever told us to start it may be gone by then.
    waits = "import time; print('there', flush=True); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-c", waits],
        pass_fds=(held.fd,), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == b"there\n"
    say("child", child.pid)
    wait_for_go()
    held.release()
    say("released")
    wait_for_go()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
