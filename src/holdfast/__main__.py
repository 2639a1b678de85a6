"""`python -m holdfast`: the same as `holdfast`."""

from __future__ import annotations

import sys

from holdfast.cli import main

if __name__ == "__main__":  # Spawned benchmark processes import this module again.
    sys.exit(main())
