"""The settings as JSON Schema (draft 2020-12): what an editor needs to check a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast._core import settings_forms as forms
from holdfast._core.settings import DEMO, default_of
from holdfast._core.settings_table import FAMILIES, FOUNDING_NAMES, KEYS, Kind, unit_of

if TYPE_CHECKING:
    from holdfast._core.settings_table import Key

__all__ = ["schema"]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """
    The schema of a whole settings file.

    It refuses whatever reading the file would refuse, but for two things that JSON Schema
    cannot say: the bounds of a number that is written as text, and that 1.0 is no integer.
    """
    root = _table()
    root = {"$schema": _DIALECT, "title": "Settings of Holdfast (holdfast.toml)", **root}
    for name, key in KEYS.items():
        told = _value(name, key)
        if key.kind is not Kind.SECRET:
            default = default_of(name)
            told["default"] = list(default) if isinstance(default, tuple) else default
        _put(root, name, told)
    for old, name in FOUNDING_NAMES.items():
        told = _value(name, KEYS[name])
        _put(root, old, {**told, "description": f"now {name}", "deprecated": True})
    for family, about in FAMILIES.items():
        member = _table()
        for last, key in about.keys.items():
            member["properties"][last] = _value(f"{family}.x.{last}", key)
        members = {
            "type": "object",
            "propertyNames": {"pattern": f"^({about.form.pattern})$"},
            "additionalProperties": member,
        }
        root["properties"][family] = members
    root["properties"]["agents"]["additionalProperties"]["allOf"] = _together()
    return root


def _table() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}


def _put(root: dict[str, Any], name: str, told: dict[str, Any]) -> None:
    *tables, last = name.split(".")
    here = root
    for table in tables:
        here = here["properties"].setdefault(table, _table())
    here["properties"][last] = told


def _together() -> list[dict[str, Any]]:
    """What goes together in one agent: see `settings.AgentSettings`."""
    others = ("model", "instructions", "tools")
    beside = ("instructions", "tools")
    return [
        {"dependentSchemas": {"object": {"properties": dict.fromkeys(others, False)}}},
        {"dependentRequired": {name: ["model"] for name in beside}},
        {
            "if": {"properties": {"model": {"const": DEMO}}, "required": ["model"]},
            "then": {"properties": dict.fromkeys(beside, False)},
        },
    ]


def _value(name: str, key: Key) -> dict[str, Any]:
    return {"description": f"{key.help}: {forms.allowed(name, key)}", **_form(name, key)}


def _form(name: str, key: Key) -> dict[str, Any]:
    number = {"type": "integer", "minimum": key.least, "maximum": key.most}
    match key.kind:
        case Kind.DURATION:
            suffix = f"({'|'.join(forms.UNITS_MS)})?"
            number["maximum"] = unit_of(name)[2]
            return {"anyOf": [number, _text(rf"\s*{forms.NUMBER}{suffix}\s*")]}
        case Kind.INTEGER:
            return {"anyOf": [number, _text(rf"\s*{forms.NUMBER}\s*")]}
        case Kind.CHOICE:
            return {"enum": list(key.choices)}
        case Kind.BOOLEAN:
            return {"anyOf": [{"type": "boolean"}, {"enum": [*forms.TRUE, *forms.FALSE]}]}
        case Kind.TEXTS:
            one = key.form.pattern
            joined = _text(rf"\s*({one}(\s*,\s*{one})*\s*)?")
            return {"anyOf": [{"type": "array", "items": _text(one)}, joined]}
        case _:
            return _text(key.form.pattern)


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({pattern})$"}
