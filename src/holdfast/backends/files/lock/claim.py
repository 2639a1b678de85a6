"""
The claim: the record beside a transcript that tells strangers who is writing.

    <resolved transcript>.lock     pretty JSON and a newline, as the founding format has it

Who may touch it: only the holder of the latch creates, replaces or removes a claim of ours,
or a stranger's whose owner is proven dead (`standing.py`).  It is written whole where nobody
looks (over the spare, `spare.py`; else under no name, else under a private one) and published
by link, which is atomic and refuses to replace; so nobody sees a claim without its contents,
and there is no grace period to tune for half-written ones.  Its descriptor stays open
while we hold it, so its inode number cannot be reused, and "is the claim at the path still
ours?" is one lstat and one pread: the inode is ours, and its bytes are.

Claims are not synced.  A claim must outlive its process, not its machine: after a power cut
every owner is dead, and the boot id in the claim says so.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import time
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from holdfast.backends.files import fs
from holdfast.backends.files.lock import own, spare
from holdfast.errors import ClaimUnknownError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Claim", "new_claim_id", "now_iso", "pretty"]

#: How O_TMPFILE is refused where it is not known; and by a file system without it.
_NO_TMPFILE: Final = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}

_prefix = uuid4().hex[:16]
_numbers = itertools.count(1)


def new_claim_id() -> str:
    """Unique among all processes; cheap, because every acquisition needs one."""
    return f"{_prefix}-{next(_numbers)}"


def _new_prefix() -> None:
    global _prefix  # noqa: PLW0603
    _prefix = uuid4().hex[:16]


os.register_at_fork(after_in_child=_new_prefix)


class Claim:
    """One claim of ours: published, looked at, withdrawn.  Needs the latch throughout."""

    __slots__ = ("_fd", "_generation", "_inode", "_payload", "claim_id", "path")

    def __init__(self, path: str, claim_id: str) -> None:
        self.path = path
        self.claim_id = claim_id
        self._fd = -1
        self._inode = (-1, -1)
        self._payload = b""
        self._generation = fs.fork_generation()

    def publish(self, payload: bytes, spare_path: str) -> bool:
        """
        Put *payload* at the path, unless a claim stands there.

        Args:
            payload: JSON, with this claim's id in it.
            spare_path: where the spare of this transcript is, or will be.

        Returns:
            True: ours stands.  False: another one does, or did when we looked.

        Raises:
            ClaimUnknownError: the link failed and nothing would say whether it landed.
            OSError: no claim of ours stands; nothing is left behind.
        """
        try:
            refusal = self._publish(payload, spare_path)
            # link(2) can land and still report failure.  Its answer is a hint; what
            # stands at the path is the truth.
            if refusal is None or self._landed(refusal):
                return True
            if isinstance(refusal, FileExistsError):
                self._close()
                return False
            raise refusal
        except BaseException:
            with suppress(OSError):
                self._close()
            raise

    def stands(self) -> bool:
        """Whether the claim at the path is still ours.  Raises OSError other than ENOENT."""
        try:
            found = fs.table.lstat(self.path)
        except FileNotFoundError:
            return False
        if (found.st_dev, found.st_ino) != self._inode:
            return False
        # The spare's inode carries one claim after another.
        return fs.table.pread(self._fd, len(self._payload), 0) == self._payload

    def withdraw(self) -> None:
        """
        Remove the claim if it is still ours, and close it.  Idempotent.

        Raises OSError when it could not be removed twice over: then it is left standing,
        closed, and row @L of the next acquirer removes it.
        """
        if self._fd < 0 or self._generation != fs.fork_generation():
            return
        try:
            self._unlink_ours()
        finally:
            self._close()

    def _unlink_ours(self) -> None:
        try:
            if self.stands():
                fs.table.unlink(self.path)
        except OSError:
            # Once more: an interrupted or half-reported call must not leave a claim.
            if self.stands():
                fs.table.unlink(self.path)

    def _publish(self, payload: bytes, spare_path: str) -> OSError | None:
        """Write and link it.  Returns what link said; raises OSError from before that."""
        if len(payload) <= spare.SIZE:
            padded = payload.ljust(spare.SIZE)
            written = spare.write_spare(spare_path, padded)
            if written is not None:
                self._fd, self._inode = written
                self._payload = padded
                refusal = self._link(spare_path)
                if not isinstance(refusal, FileNotFoundError):
                    return refusal
                self._close()  # Somebody has just removed its name.
        private = self._write_private(payload)
        try:
            return self._link(private)
        finally:
            if private is not None:
                fs.remove_own(private)

    def _write_private(self, payload: bytes) -> str | None:
        """An open, written file under no name; or its private name, where that is unknown."""
        private = None
        try:
            directory = os.path.dirname(self.path)
            self._fd = fs.open_fd(directory, os.O_TMPFILE | os.O_RDWR, 0o600)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            private = f"{self.path}.{self.claim_id}"
            self._fd = fs.open_fd(private, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            found = fs.table.fstat(self._fd)
            self._inode = (found.st_dev, found.st_ino)
            self._payload = payload
            written = fs.table.write(self._fd, payload)
            if written < len(payload):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            if private is not None:
                fs.remove_own(private)
            raise
        return private

    def _link(self, source: str | None) -> OSError | None:
        own.roll.claims[self] = get_ident()
        if own.roll.leaving:
            own.announce(self)
        try:
            if source is None:
                # The directory descriptor is ignored for an absolute path; naming one is
                # what makes `os.link` follow the magic link.
                magic = f"/proc/self/fd/{self._fd}"
                fs.table.link(magic, self.path, src_dir_fd=self._fd, follow_symlinks=True)
            else:
                fs.table.link(source, self.path)
        except OSError as error:
            return error
        return None

    def _landed(self, refusal: OSError) -> bool:
        try:
            return self.stands()
        except OSError:
            raise ClaimUnknownError(path=self.path) from refusal

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        own.roll.claims.pop(self, None)
        if fd >= 0:
            fs.close_fd(fd)


def pretty(fields: Mapping[str, str | int | None]) -> str:
    """
    What `json.dumps` makes of flat *fields* with an indent of 2, less those that are None.  An
    indent costs it its encoder written in C: half of what a claim costs.
    """
    known = ((name, value) for name, value in fields.items() if value is not None)
    lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in known)
    return "{\n" + ",\n".join(lines) + "\n}"


_second = (0, "")


def now_iso() -> str:
    """Wall-clock UTC with milliseconds, for `createdAt`.  The second is rendered once."""
    global _second  # noqa: PLW0603
    seconds, rest_ns = divmod(fs.table.time_ns(), 1_000_000_000)
    second = _second
    if second[0] != seconds:
        _second = second = (seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)))
    return f"{second[1]}.{rest_ns // 1_000_000:03d}Z"
