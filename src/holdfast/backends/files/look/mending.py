"""
Removing a dead claim the way a waiter does: by taking the write lock, and giving it back.

So there is no second opinion about what is dead, and no second way to remove it: the table
decides under the latch, and the claim is set aside, looked at, and only then gone.
"""

from __future__ import annotations

import os
from typing import Final

from holdfast.backends.files.lock.standing import judged
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import CoordinationError

__all__ = ["reclaim"]

WITHIN_S: Final = 1.0  #: A waiter's deadline; what is dead is replaced at the first look.


def reclaim(path: str, *, stale_ms: int) -> bool:
    """
    Remove the claim beside the transcript at *path*, if it is dead.

    Returns:
        False: it still stands.  Somebody has the lock, or there is no transcript any more,
        and so nothing to latch.

    Raises:
        StoreError: the file system refused.
        OSError: the claim cannot be looked at.
    """
    if not os.path.isfile(path):
        return False  # Taking the lock would make the transcript.
    found = judged(path, latched=False, stale_ms=stale_ms)
    if found is None or found.verdict != "reclaim":
        return found is None
    try:
        WriteLock(path, timeout_s=WITHIN_S).acquire_sync().release()
    except CoordinationError:
        return False  # Somebody was faster, or has come to life.
    return True
