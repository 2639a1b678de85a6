"""Which secrets this suite has used, and which logs must not hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

LOGS: list[Path] = []
KNOWN: set[str] = set()


def note(log: Path, env: Mapping[str, str], token: str | None) -> None:
    """A server was started: remember where it logs, and what it must not say."""
    LOGS.append(log)
    KNOWN.update(
        value
        for name, value in env.items()
        if name.endswith(("_API_KEY", "__TOKEN", "_SECRET", "HOLDFAST_TOKEN"))
        and len(value) > 8
    )
    if token:
        KNOWN.add(token)


def check(logs: Iterable[Path]) -> None:
    for path in logs:
        text = path.read_text(errors="replace") if path.exists() else ""
        assert not [line for line in text.splitlines() if any(s in line for s in KNOWN)], path
