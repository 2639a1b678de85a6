"""
One value of one setting: read, or refused with its name, what it is, and what is allowed.

Values are text (environment, command line) or what TOML and Python have.  Every kind takes
text, so that all sources speak alike; `schema` says the same of a whole file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.settings_table import FAMILIES, KEYS, Kind, find, unit_of
from holdfast.errors import BadSettingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast._core.settings_table import Family, Key

__all__ = ["FALSE", "NUMBER", "TRUE", "UNITS_MS", "allowed", "nearest", "read", "unknown"]

NUMBER: Final = r"[0-9]{1,18}"  #: More digits are no number that anybody means.
UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
TRUE: Final = ("true", "yes", "on", "1")
FALSE: Final = ("false", "no", "off", "0")
SHOWN_CHARS_MAX: Final = 80

_DURATION: Final = re.compile(f"({NUMBER})({'|'.join(UNITS_MS)})?")
#: What looks as if it were one is not shown, even under a name that we do not know.
_SECRET: Final = re.compile(r"token|secret|passw|api_?key|credential", re.IGNORECASE)
_HIDDEN: Final = "(not shown)"


def read(name: str, key: Key, value: Any, *, called: str | None = None) -> Any:
    """
    The value of the setting *name*, of the type its field has.

    Args:
        called: what its giver calls it, if that is an older name.

    Raises:
        BadSettingError: it is not of its kind.
    """
    found = _read(name, key, value)
    if found is None:
        hidden = key.kind is Kind.SECRET or key.private
        shown = _HIDDEN if hidden else _shown(value)
        raise BadSettingError(key=called or name, value=shown, allowed=allowed(name, key))
    return found


def allowed(name: str, key: Key) -> str:
    """What the setting *name* may be, in words."""
    match key.kind:
        case Kind.DURATION:
            unit, _, most = unit_of(name)
            return (
                "a duration like 500ms, 60s, 5m, 2h, or a whole number of"
                f" {unit} from {key.least} to {most}"
            )
        case Kind.INTEGER:
            return f"a whole number from {key.least} to {key.most}"
        case Kind.CHOICE:
            return f"one of {', '.join(key.choices)}"
        case Kind.BOOLEAN:
            return "true or false"
        case Kind.TEXTS:
            return f"a list (or text with commas), each {key.form.told}"
        case _:
            return key.form.told


def unknown(name: str, value: Any) -> BadSettingError:
    """There is no setting *name*."""
    near = nearest(name, _known(name))
    key = find(near) if near else None
    hidden = _SECRET.search(name) or (key is not None and key.kind is Kind.SECRET)
    family, _, rest = name.partition(".")
    if near:
        told = f"no such setting; did you mean {near}?"
    elif family in FAMILIES:
        told = f"no such setting; known: {_told(family, FAMILIES[family], rest)}"
    else:
        told = "no such setting; holdfast config show lists all"
    shown = _HIDDEN if hidden else _shown(value)
    return BadSettingError(key=name[:SHOWN_CHARS_MAX], value=shown, allowed=told)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of *known* that was probably meant; None: nobody can tell."""
    name = name[:SHOWN_CHARS_MAX].lower()
    known = list(known)
    # The whole name first; then its last part alone, which may stand in the wrong table.
    shorts = [each.rpartition(".")[2] for each in known]
    for meant, told in ((name, known), (name.rpartition(".")[2], shorts)):
        steps = [_distance(meant, each.lower()) for each in told]
        best = min(steps, default=len(meant))
        if best <= max(1, len(meant) // 5) and steps.count(best) == 1:
            return known[steps.index(best)]
    return None


# ------------------------------------------------------------------------------- kinds


def _read(name: str, key: Key, value: Any) -> Any:
    """None: not of its kind."""
    match key.kind:
        case Kind.DURATION:
            _, unit_ms, most = unit_of(name)
            return _number(value, key.least, most, unit_ms)
        case Kind.INTEGER:
            return _number(value, key.least, key.most)
        case Kind.CHOICE:
            return value if isinstance(value, str) and value in key.choices else None
        case Kind.BOOLEAN:
            return _boolean(value)
        case Kind.TEXTS:
            return _texts(key, value)
        case _:
            return _text(key, value)


def _number(value: Any, least: int, most: int, unit_ms: int | None = None) -> int | None:
    """*unit_ms*: the unit of a duration; None: a plain number."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        number, suffix = int(match[1]), match[2]
        if suffix and unit_ms is None:
            return None
        if suffix and unit_ms is not None:
            number, rest = divmod(number * UNITS_MS[suffix], unit_ms)
            if rest:
                return None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        return None
    return number if least <= number <= most else None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        word = value.strip().lower()
        return word in TRUE if word in {*TRUE, *FALSE} else None
    return value if isinstance(value, bool) else None


def _text(key: Key, value: Any) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(key.form.pattern, value):
        return None
    # The environment may hold bytes that are no text: they come as lone surrogates.
    return None if any("\ud800" <= letter <= "\udfff" for letter in value) else value


def _texts(key: Key, value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value.strip() else []
    if not isinstance(value, list | tuple):
        return None
    texts = [_text(key, each) for each in value]
    return tuple(text for text in texts if text is not None) if None not in texts else None


# ---------------------------------------------------------------------- what was meant


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"


def _known(name: str) -> list[str]:
    """Every name that could have been meant by *name*: a family's with its own member."""
    words = name.split(".")
    found = list(KEYS)
    for family, told in FAMILIES.items():
        if len(words) == 3 and re.fullmatch(told.form.pattern, words[1]):
            found += [f"{family}.{words[1]}.{key}" for key in told.keys]
    return found


def _told(name: str, family: Family, rest: str) -> str:
    keys = ", ".join(f"{name}.{family.member}.{key}" for key in family.keys)
    member = rest.partition(".")[0]
    return keys if re.fullmatch(family.form.pattern, member) else f"{keys}; {family.form.told}"


def _distance(left: str, right: str) -> int:
    """How many letters are inserted, left out or changed."""
    row = list(range(len(right) + 1))
    for at, letter in enumerate(left, 1):
        above, row[0] = row[0], at
        for other, seen in enumerate(right, 1):
            best = min(row[other] + 1, row[other - 1] + 1, above + (letter != seen))
            above, row[other] = row[other], best
    return row[-1]
