"""
Whether what stood at a mark still stands, shown by digests of it.  All of it off the loop.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast._core import fence
from holdfast.backends.files.transcript import digest

if TYPE_CHECKING:
    import os

    from holdfast.backends.files.transcript.loaded import Known
    from holdfast.types import Mark

__all__ = ["begin", "can_tell", "disproof"]


def begin(path: str, look: fence.Look, known: Known) -> digest.Job | None:
    """Have what stands up to the last whole line hashed in the background."""
    if known.end > fence.DIGEST_BYTES_MAX:
        return None

    def still(stat: os.stat_result) -> bool:
        """Others may append while it is being read; anything else makes it worthless."""
        if (stat.st_dev, stat.st_ino) != (look.device, look.inode):
            return False
        return stat.st_size > look.size or (
            stat.st_size == look.size and stat.st_mtime_ns == look.mtime_ns
        )

    before = known.ahead[0] if known.ahead is not None else None
    job = digest.later(path, known.end, still, after=before)
    if job is not None:
        known.ahead = (job, replace(known, ahead=None, tree=None, branch=None))
    return job


def can_tell(mark: Mark) -> bool:
    """Whether the digest of what stood at *mark* is known, or in the making."""
    if mark.digest is not None:
        return True
    if not isinstance(mark.proof, digest.Job):
        return False
    made = mark.proof.made
    return not made.done() or (not made.cancelled() and made.result() is not None)


async def disproof(path: str, mark: Mark, look: fence.Look) -> str | None:
    """Why what stood at the mark cannot be shown to stand still; None: it does."""
    if mark.whole > fence.DIGEST_BYTES_MAX:
        return f"it is longer than {fence.DIGEST_BYTES_MAX >> 20} MB, too long to compare"
    before = mark.digest or await _made(mark.proof)
    if before is None:
        return "what stood at our mark was not read in time to compare"
    job = digest.later(
        path,
        mark.whole,
        lambda stat: (stat.st_dev, stat.st_ino) == (look.device, look.inode),
    )
    now = await _made(job)
    return None if now == before else "what stood at our mark is not there any more"


async def _made(job: digest.Job | None) -> bytes | None:
    """The digest that *job* makes; None: it cannot be known."""
    if job is None:
        return None
    try:
        sha = await asyncio.shield(asyncio.wrap_future(job.made))
    except asyncio.CancelledError:
        job.stop()
        raise
    return None if sha is None else sha.digest()
