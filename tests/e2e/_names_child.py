"""
Uses one transcript under one of its names, with others that use other names.  Not a test.

    python _names_child.py NAME SUM COUNT TAG     says `ready`; works when told `go`
"""

from __future__ import annotations

import os
import sys

from holdfast.backends.files.lock.write_lock import WriteLock


def main(name: str, total: str, count: str, tag: str) -> None:
    lock = WriteLock(name)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(count)):
        with lock as held:
            with open(total, "r+") as file:  # Read, then write: two at once lose one.
                found = int(file.read() or 0)
                os.sched_yield()
                file.seek(0)
                file.write(str(found + 1))
            held.append(b'{"by":"%s","n":%d}\n' % (tag.encode(), number), sync=False)
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
