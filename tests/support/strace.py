"""
Real system calls of a real process, failed, faked or answered with a kill, by strace.

Never `--seccomp-bpf`: with it, an injected signal is silently dropped and a test would pass
for nothing.  So every use asserts that the injection happened.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["calls_of", "inject", "needs_strace"]

WITHIN_S = 60.0

#: ``1234  write(3, …`` — also of a call that was interrupted by another thread's.
_CALL = re.compile(r"^(\d+) +(\w+)\(", re.MULTILINE)


@cache
def _refusal() -> str:
    strace = shutil.which("strace")
    if strace is None:
        return "there is no strace here"
    tried = subprocess.run(
        [strace, "-f", "-qq", "-o", "/dev/null", "true"], check=False, capture_output=True
    )
    return "" if tried.returncode == 0 else "strace is not permitted here"


def needs_strace() -> None:
    """Skip the test, and say why, where strace cannot be used."""
    if reason := _refusal():
        pytest.skip(reason)


def _run(log: Path, options: Iterable[str], paths: Iterable[Path], argv: Iterable[str]) -> int:
    only = [option for path in paths for option in ("-P", str(path))]
    command = ["strace", "-f", "-qq", "-o", str(log), *only, *options, sys.executable, *argv]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=WITHIN_S
    )
    return done.returncode


def calls_of(log: Path, paths: Iterable[Path], argv: Iterable[str]) -> list[tuple[str, int]]:
    """
    Run *argv* undisturbed, and list its calls about *paths* as (name, the how-manieth).

    Counted for each thread by itself, as strace does.
    """
    assert _run(log, (), paths, argv) == 0
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for thread, name in _CALL.findall(log.read_text(errors="replace")):
        counts[thread, name] += 1
        found.append((name, counts[thread, name]))
    return list(dict.fromkeys(found))


def inject(log: Path, what: str, paths: Iterable[Path], argv: Iterable[str]) -> int:
    """
    Run *argv* with one injection, for example ``write:error=ENOSPC:when=2``.

    Counts only calls about *paths*.  Returns the exit code, negative for a signal.
    """
    call = what.partition(":")[0]
    code = _run(log, ("-e", f"trace={call}", "-e", f"inject={what}"), paths, argv)
    told = log.read_text(errors="replace")
    if "signal=KILL" in what:
        assert code in {-9, 137}, f"{what}: nobody was killed"
    else:
        assert "(INJECTED)" in told, f"{what}: nothing was injected"
    return code
