"""What a typed or piped line means: a message, a command, or a part of either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "Command", "Message", "joined", "read"]

COMMANDS: Final = ("help", "quit", "cancel", "who", "status", "history")
HISTORY_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Message:
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    name: str  #: One of COMMANDS; what was typed, if there is an error.
    count: int | None = None
    error: str | None = None


def joined(lines: Sequence[str]) -> str | None:
    """The text that *lines* are; None: the last one ends with a backslash and goes on."""
    if lines[-1].endswith("\\"):
        return None
    return "\n".join([*(line[:-1] for line in lines[:-1]), lines[-1]])


def read(text: str) -> Message | Command | None:
    """What *text* asks for; None: nothing."""
    if not text.strip():
        return None
    if text.startswith("//"):
        return Message(text[1:])
    return _command(text[1:]) if text.startswith("/") else Message(text)


def _command(text: str) -> Command:
    name, _, rest = text.partition(" ")
    rest = rest.strip()
    if name not in COMMANDS:
        known = ", ".join(f"/{each}" for each in COMMANDS)
        wrong = f"no such command: /{name[:40]}; there are {known}; //{name[:40]} sends it"
        return Command(name, error=wrong)
    if not rest:
        return Command(name)
    if name != "history":
        return Command(name, error=f"/{name} takes nothing after it")
    if not (rest.isascii() and rest.isdecimal() and 1 <= int(rest[:9]) <= HISTORY_MAX):
        return Command(name, error=f"/history takes a number from 1 to {HISTORY_MAX}")
    return Command(name, int(rest))
