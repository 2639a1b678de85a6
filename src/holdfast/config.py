"""
Settings from outside: a TOML file, the environment, and what the caller gives; later wins.

The table of settings is `_core.settings_table`.  Nothing here decides what a value may be;
this module finds values and remembers where each one stood.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.settings import Given, each_given, settle
from holdfast._core.settings_table import FOUNDING_VARIABLES
from holdfast.errors import BadRequestError, BadSettingError, NotFoundError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from holdfast._core.settings import Problem, Settings

__all__ = [
    "FILE",
    "PREFIX",
    "Loaded",
    "agent_flags",
    "default_store",
    "file_for",
    "from_environment",
    "load",
    "look",
    "read_file",
]

PREFIX: Final = "HOLDFAST_"
FILE: Final = "holdfast.toml"
FILE_BYTES_MAX: Final = 1_048_576  #: A configuration is written by hand.
#: Variables of ours that are not settings.
_NOT_SETTINGS: Final = frozenset(
    f"{PREFIX}{name}" for name in ("STORE", "DEBUG", "CONFIG", "URL", "TOKEN")
)
#: The founding system's variables about what these settings are about.
_FOUNDING_PREFIX: Final = "OPENCLAW_SESSION_WRITE_LOCK_"
#: Where tomllib says that the trouble is; its errors carry it in words only.
_POSITION: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")
_AGENT_FLAG: Final = re.compile(r"(?:([^=:]*)=)?([^=]+)")

_log = logging.getLogger("holdfast")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in force, where it came from, and what is wrong with it."""

    settings: Settings  #: Of what is good, if there are problems.
    #: Name → the value in force, as it was given.  What is not here is a default.
    won: Mapping[str, Given] = field(repr=False)  # Holds secrets, like the next.
    problems: tuple[Problem, ...] = field(repr=False)
    notices: tuple[str, ...]  #: What a user of older names should hear.


# -------------------------------------------------------------------------- all together


def load(
    *,
    file: str | None = None,
    environment: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
    given_by: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """
    The settings in force.  Older names are taken with a warning on the log.

    Args:
        file: a TOML file; None = none.  `file_for` finds the one that a command reads.
        environment: as in ``os.environ``; None = none.
        given: dotted names, e.g. a command's flags.  A value of None was not given.
        given_by: who gave them, for messages: "command line".
        defaults: dotted names, in force where nobody gives a value.

    Raises:
        BadSettingError: a value is unknown or malformed, in whatever source.
        BadRequestError, NotFoundError, TooLargeError: the file cannot be read.

    Cost:
        Blocks for one small file, if one is given.
    """
    loaded = look(
        file=file, environment=environment, given=given, given_by=given_by, defaults=defaults
    )
    if loaded.problems:
        raise _first(loaded.problems)
    for notice in loaded.notices:
        _log.warning("%s", notice)
    return loaded.settings


def look(
    *,
    file: str | None = None,
    environment: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
    given_by: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> Loaded:
    """
    Like `load`, but bad values are in the result, and nothing is logged.

    Raises:
        BadRequestError, NotFoundError, TooLargeError: the file cannot be read.
    """
    told = list(each_given(defaults or {}))
    if file is not None:
        told += each_given(_flat(read_file(file)), file)
    told += _from_environment(environment or {})
    told += each_given({n: v for n, v in (given or {}).items() if v is not None}, given_by)
    settled = settle(told)
    return Loaded(
        settled.settings,
        settled.won,
        settled.problems,
        (*settled.notices, *_without_successor(environment or {})),
    )


def _first(problems: tuple[Problem, ...]) -> BadSettingError:
    error = problems[0].error
    if len(problems) > 1:
        all_of_them = f"holdfast config check lists all {len(problems)} problems"
        error.hint = f"{error.hint}; {all_of_them}" if error.hint else all_of_them
    return error


# ------------------------------------------------------------------------------ the file


def file_for(given: str | None) -> str | None:
    """
    The file that a command reads: *given*, ``$HOLDFAST_CONFIG``, ``./holdfast.toml``; or none.

    A file that was named must be there, which `read_file` finds out; the last need not.
    """
    if named := given or os.environ.get(f"{PREFIX}CONFIG"):
        return named
    return FILE if os.path.exists(FILE) else None


def read_file(path: str) -> dict[str, Any]:
    """
    The tables of a TOML file, unchecked.

    Raises:
        NotFoundError: there is no such file.
        BadRequestError: it cannot be read, or is not TOML; says in which line.
        TooLargeError: over 1 MiB.
    """
    import tomllib  # noqa: PLC0415  15 ms that only a command with a file should pay.

    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFoundError(
            what="configuration file", name=path, hint="see --config and $HOLDFAST_CONFIG"
        ) from None
    except OSError as error:
        raise BadRequestError(detail=f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # A path with a null byte.
        raise BadRequestError(detail=f"{path!r}: {error}") from error
    if len(raw) > FILE_BYTES_MAX:
        raise TooLargeError(what=f"{path}, a configuration file", size=len(raw),
                            limit=FILE_BYTES_MAX, hint="is this the right file?")  # fmt: skip
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadRequestError(detail=f"{path}:{line}: not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise BadRequestError(detail=_malformed(path, str(error), raw)) from error
    except RecursionError as error:
        raise BadRequestError(detail=f"{path}: nested too deeply") from error


def _malformed(path: str, said: str, raw: bytes) -> str:
    if (at := _POSITION.search(said)) is not None:
        return f"{path}:{at[1]}: not TOML: {said[: at.start()]} (column {at[2]})"
    return f"{path}:{len(raw.splitlines())}: not TOML: {said}"


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """
    Nested tables as dotted names.

    A table with nothing in it stands for itself, as ``{}``: it may name an agent, or be a
    slip.  A name that has a dot or worse *inside* keeps its quotes, so that it is no path.
    """
    found = dict[str, Any]()
    for name, value in table.items():
        plain = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else repr(name)
        path = f"{above}.{plain}" if above else plain
        if isinstance(value, dict) and value:
            found |= _flat(value, path)
        else:
            found[path] = value
    return found


# ----------------------------------------------------------------------- the environment


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """``HOLDFAST_TURN__QUEUE_MAX=400`` → ``{"turn.queue_max": "400"}``, unchecked."""
    return {_name(each): value for each, value in environment.items() if _is_setting(each)}


def _from_environment(environment: Mapping[str, str]) -> Iterator[Given]:
    for variable, value in environment.items():
        source = f"environment {variable}"
        if variable in FOUNDING_VARIABLES:
            yield Given(FOUNDING_VARIABLES[variable], value, source, called=variable)
        elif _is_setting(variable):
            yield from each_given({_name(variable): value}, source)


def _without_successor(environment: Mapping[str, str]) -> Iterable[str]:
    for variable in environment:
        if variable.startswith(_FOUNDING_PREFIX) and variable not in FOUNDING_VARIABLES:
            yield f"environment {variable}: this version has no such setting; it does nothing"


def _is_setting(variable: str) -> bool:
    return variable.startswith(PREFIX) and variable not in _NOT_SETTINGS


def _name(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower().replace("__", ".")


# ------------------------------------------------------------------------- other sources


def agent_flags(flags: Iterable[str]) -> dict[str, str]:
    """
    ``--agent [ID=]MODULE:OBJECT`` as settings; without ID it is ``main``.

    ``["app:agent", "ops=app:other"]`` →
    ``{"agents.main.object": "app:agent", "agents.ops.object": "app:other"}``.

    Raises:
        BadSettingError: not of that form, or two for one id.  What the parts may be is
            checked where all settings are.
    """
    found = dict[str, str]()
    for flag in flags:
        match = _AGENT_FLAG.fullmatch(flag)
        if match is None or ":" not in match[2] or match[1] == "":
            raise BadSettingError(
                key="--agent", value=flag[:80], allowed="[ID=]MODULE:OBJECT like app:agent"
            )
        name = f"agents.{match[1] or 'main'}.object"
        if name in found:
            raise BadSettingError(
                key="--agent",
                value=flag[:80],
                allowed=f"one agent an id; {match[1] or 'main'} is {found[name]} already",
                hint="put ID= before it, like other=app:agent",
            )
        found[name] = match[2]
    return found


def default_store() -> str:
    """``$HOLDFAST_STORE``, else the user's state directory (XDG Base Directory)."""
    if given := os.environ.get("HOLDFAST_STORE"):
        return given
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(
        os.path.expanduser("~"), ".local", "state"
    )
    return os.path.join(base, "holdfast")
