"""
The spare: the permanent file that claims are published from.

    <resolved transcript>.claim     0600, SIZE bytes; its name is never removed while it is good

Making an inode for every claim and freeing it again costs more than everything else about
it.  So the holder of the latch writes its claim over the spare, with one write, and links
it to ``.lock``; letting go is unlinking ``.lock``.  Never synced, as no claim is.

Nobody sees half a claim, because the spare is written only while it has one link, its own
name.  A claim that a dead owner left is a second link: it must be judged and unlinked first.
With a second link, or if the file is not what we would have made (a symlink, somebody
else's, another size or mode, unreadable), there is no spare, and a claim gets its own inode.

**One inode now carries one claim after another**, so an inode alone no longer tells whose
claim stands.  A claim is ours if the inode is *and* its bytes are: each carries a fresh
claim id.  Case by case:

- ours, same name: they need the latch that we hold.
- ours under another hard link of the transcript: another name has another spare.
- the transcript was replaced under a holder (row @L under another inode): then there are two
  latches for one name and one spare.  The newcomer unlinks the old claim, rewrites the spare
  and links it again.  The old holder finds the inode it knows, with bytes it does not:
  LockLostError.  It could not have written in any case, because an append looks whether the
  path still names the latched inode; but its release would have removed the newcomer's claim.
- a stranger's or an editor's own file at ``.lock``: another inode.  Not a reused number, as
  our descriptor is open.
- ``rm *.lock``: nothing stands there.  ``rm *.claim``: the claim that stands stays; the next
  one makes a new spare.
- a stranger that has ``.lock`` open while it changes hands reads the older or the newer
  claim.  One that compares inodes but not bytes before it removes "the same" claim (the
  founding system compares both) can remove a newer one: LockLostError, as after any removal.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

from holdfast.backends.files import fs

__all__ = ["SIZE", "write_spare"]

SIZE: Final = 1021  #: Of every claim in a spare, padded.  Odd, so that no other file has it.

_MINE: Final = stat.S_IFREG | 0o600
_OPEN: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
_MAKE: Final = _OPEN | os.O_CREAT | os.O_EXCL

#: How it is opened, and at what inode it was found.
Written = tuple[int, tuple[int, int]]


def write_spare(path: str, payload: bytes) -> Written | None:
    """
    Write *payload* of SIZE bytes over the spare at *path*.  Needs the latch.

    Returns:
        Its descriptor and inode; None: there is no spare that may be written, or the file
        system refused, whose reasons the other way of making a claim will find again.
    """
    try:
        fd = _open(path)
    except OSError:
        return None
    written = None
    try:
        written = _overwrite(fd, path, payload)
    except OSError:
        pass
    finally:
        if written is None:
            with suppress(OSError):
                fs.close_fd(fd)
    return written


def _open(path: str) -> int:
    try:
        return fs.open_fd(path, _OPEN)
    except FileNotFoundError:
        return fs.open_fd(path, _MAKE, 0o600)


def _overwrite(fd: int, path: str, payload: bytes) -> Written | None:
    found = fs.table.fstat(fd)
    if found.st_nlink != 1 or found.st_mode != _MINE or found.st_size not in _SIZES:
        return None
    if found.st_uid != os.geteuid():
        return None
    try:
        whole = fs.table.pwrite(fd, payload, 0) == SIZE
    except OSError:
        whole = False
    if not whole:
        fs.remove_own(path)  # Half a size is nobody's: it would never be written again.
        return None
    return fd, (found.st_dev, found.st_ino)


_SIZES: Final = (SIZE, 0)  #: Empty: made, and then its maker died.
