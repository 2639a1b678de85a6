"""
Processes of the founding system on this machine.

It removes the lock of any live process whose command line is not its own.  No lock of ours
excludes it, so it is looked for by name: the way it looks for itself.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["foreigners"]

_NAMES: Final = {"openclaw", "openclaw-gateway", "openclaw.mjs"}
_ENTRIES: Final = {
    *("dist/index.js", "dist/entry.js", "scripts/run-node.mjs", "src/entry.ts"),
    "src/index.ts",
}
_COMMANDS: Final = {"gateway", "agent"}
_WORDS_MAX: Final = 3  #: The program, an option of its interpreter, its script.


def foreigners() -> Iterator[tuple[int, str]]:
    """(pid, command line) of each that can be seen.  Raises OSError: /proc cannot be read."""
    me = fs.table.getpid()
    for name in fs.table.listdir("/proc"):
        if not name.isdecimal() or int(name) == me:
            continue
        try:
            raw = fs.read_small(f"/proc/{name}/cmdline")
        except OSError:  # Gone, or hidden from us.
            continue
        words = [os.fsdecode(word) for word in raw.split(b"\0") if word]
        if _is_founding(words):
            yield int(name), " ".join(words)


def _is_founding(words: list[str]) -> bool:
    if not words:
        return False
    # A title that a program gives itself is one word with spaces in it.
    program = words[0].split(" ")[0]
    if any(os.path.basename(word) in _NAMES for word in [program, *words[1:_WORDS_MAX]]):
        return True
    entry = any("openclaw/" in word and word.endswith(tuple(_ENTRIES)) for word in words[1:])
    return entry and not _COMMANDS.isdisjoint(words)
