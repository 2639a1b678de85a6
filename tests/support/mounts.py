"""
Small file systems of one's own, in a mount namespace that ends with the process.

As root by `unshare -m`; as anybody else by a user namespace, where the kernel allows it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["on_tmpfs"]

WITHIN_S = 120.0

_MOUNT = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'


def _command(options: str, where: Path | str, argv: Sequence[str]) -> list[str]:
    flags = "-m" if os.geteuid() == 0 else "-Urm"
    return ["unshare", flags, "sh", "-c", _MOUNT, "sh", options, str(where), *argv]


@cache
def _refusal() -> str:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return "there is no unshare or no mount here"
    tried = subprocess.run(
        _command("size=64k", "/tmp", ["true"]), check=False, capture_output=True, text=True
    )
    return "" if tried.returncode == 0 else f"no mounts here: {tried.stderr.strip()}"


def on_tmpfs(options: str, where: Path, argv: Sequence[str]) -> str:
    """
    Run *argv* with a tmpfs at *where*; returns what it printed.

    Skips the test, and says why, where that is not permitted.

    Args:
        options: as of mount: ``size=1m``, ``nr_inodes=20``.
    """
    if reason := _refusal():
        pytest.skip(reason)
    where.mkdir(exist_ok=True)
    done = subprocess.run(
        _command(options, where, argv),
        check=False,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout
