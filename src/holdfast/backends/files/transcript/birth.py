"""
When a file was made, by statx(2), which Python does not offer before 3.15.

An inode's number is given to the next file as soon as the old one is gone: the birth tells
the two apart.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["birth_ns"]

_AT_EMPTY_PATH: Final = 0x1000
_STATX_BTIME: Final = 0x800
_STATX_BYTES: Final = 256
#: Struct statx: its mask first; at 80 the birth, i64 s and u32 ns.
_STATX: Final = struct.Struct("<I76xqI")
_NOT_HERE: Final = {errno.ENOSYS, errno.EINVAL, errno.EPERM}  #: Old kernels; sandboxes.


@cache
def _statx() -> Callable[[int], tuple[int, int, int]] | None:
    import ctypes  # noqa: PLC0415  Only who looks at a transcript asks.

    try:
        call: Any = ctypes.CDLL(None, use_errno=True).statx
    except (OSError, AttributeError):  # Not Linux, or no C library that knows it.
        return None

    room: Any = ctypes.c_char * _STATX_BYTES

    def ask(fd: int) -> tuple[int, int, int]:
        answer = room()
        if call(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, answer):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        mask, seconds, ns = _STATX.unpack_from(answer)
        return mask, seconds, ns

    return ask


def birth_ns(fd: int) -> int | None:
    """
    Nanoseconds since the epoch; None: the platform or the file system does not say.

    Raises OSError.  Costs one system call.
    """
    ask = _statx()
    if ask is None:
        return None
    try:
        mask, seconds, ns = ask(fd)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return None
        raise
    return seconds * 1_000_000_000 + ns if mask & _STATX_BTIME else None
