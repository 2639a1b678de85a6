"""What a setting may be: its kind, its form, its bounds; and families of settings."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["INTEGER_MOST", "PROSE", "Family", "Form", "Key", "Kind"]

INTEGER_MOST: Final = 2**31 - 1  #: What only a slip of the hand exceeds.


class Kind(StrEnum):
    DURATION = auto()  #: In TOML a number of the unit that ends the name, or `60s`.
    INTEGER = auto()
    CHOICE = auto()
    TEXT = auto()
    BOOLEAN = auto()
    TEXTS = "list of texts"  #: A list, or one text with commas.
    SECRET = auto()  #: A text that nothing ever shows: no message, no log, no `repr`.


@dataclass(frozen=True, slots=True)
class Form:
    """What a text looks like.  The pattern means the same to `re` and to JSON Schema."""

    pattern: str
    told: str


PROSE: Final = Form(r"[\s\S]*\S[\s\S]*", "text")


@dataclass(frozen=True, slots=True)
class Key:
    field: str  #: Its field in `Settings`, `Lane` or `AgentSettings`.
    kind: Kind
    help: str
    least: int = 0
    most: int = INTEGER_MOST  #: Of a duration: see `unit_of`.
    choices: tuple[str, ...] = ()
    form: Form = PROSE
    private: bool = False  #: May hold a token: shown only as far as its host.


@dataclass(frozen=True, slots=True)
class Family:
    """Settings that every member of a kind has: ``lanes.<name>.…``."""

    member: str  #: What a member is called: `<name>`, `<id>`.
    form: Form  #: What a member's name looks like.
    keys: Mapping[str, Key]
