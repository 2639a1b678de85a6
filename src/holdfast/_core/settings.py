"""
Every setting this version has: its name, its default, its form.

Values come as text (environment, command line) or as TOML/Python values.  Durations read
`500ms`, `60s`, `5m`, `2h`, or a number of the unit that ends the key's name.  Whatever is
unknown or malformed is refused by name; nothing is ignored in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import BadSettingError, UnknownLaneError, UnknownPolicyError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEYS", "LANES", "POLICIES", "Key", "Lane", "Settings", "parse"]

#: Policies that this version has.  The glossary's other names come with later versions.
POLICIES: Final = ("enqueue", "reject")
DURABILITY: Final = ("always", "turn", "os")


@dataclass(frozen=True, slots=True)
class Lane:
    concurrency: int  #: Turns of this lane at once, over the whole store.
    priority: int  #: Higher runs first.


LANES: Final = {
    "user": Lane(32, 100),
    "subagent": Lane(16, 60),
    "cron": Lane(8, 40),
    "heartbeat": Lane(2, 20),
    "maintenance": Lane(2, 10),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked.  Make one with `parse`."""

    write_lock_acquire_timeout_ms: int = 60_000
    write_lock_max_hold_ms: int = 30_000
    durability: str = "turn"
    lease_ms: int = 30_000
    policy: str = "enqueue"
    queue_max: int = 200
    attempts_max: int = 3
    reruns_max: int = 1
    settle_ms: int = 2_000
    idle_timeout_ms: int = 120_000
    message_bytes_max: int = 1_048_576
    live_log_minutes: int = 15
    lanes: Mapping[str, Lane] = field(default_factory=lambda: dict(LANES))
    #: `agents.<id>.model`: agent id → model name.  Naming an agent makes it known.
    agents: Mapping[str, str | None] = field(default_factory=dict)

    def lane(self, name: str) -> Lane:
        try:
            return self.lanes[name]
        except KeyError:
            raise UnknownLaneError(lane=name[:80], known=sorted(self.lanes)) from None

    def checked_policy(self, name: str | None) -> str:
        name = name or self.policy
        if name not in POLICIES:
            raise UnknownPolicyError(policy=name[:80], available=list(POLICIES))
        return name


@dataclass(frozen=True, slots=True)
class Key:
    field: str
    least: int = 0
    choices: tuple[str, ...] = ()


KEYS: Final[Mapping[str, Key]] = {
    "session.write_lock.acquire_timeout_ms": Key("write_lock_acquire_timeout_ms", 1),
    "session.write_lock.max_hold_ms": Key("write_lock_max_hold_ms", 1),
    "session.durability": Key("durability", choices=DURABILITY),
    "turn.lease_ms": Key("lease_ms", 300),
    "turn.policy": Key("policy", choices=POLICIES),
    "turn.queue_max": Key("queue_max", 1),
    "turn.max_attempts": Key("attempts_max", 1),
    "turn.max_reruns": Key("reruns_max"),
    "abort.settle_ms": Key("settle_ms", 1),
    "models.idle_timeout_ms": Key("idle_timeout_ms", 1),
    "gateway.max_message_bytes": Key("message_bytes_max", 1),
    "gateway.live_log_minutes": Key("live_log_minutes"),
}

_LANE_KEY: Final = re.compile(r"lanes\.([a-z][a-z0-9_-]{0,63})\.(concurrency|priority)")
_AGENT_KEY: Final = re.compile(r"agents\.([a-z0-9][a-z0-9_-]{0,63})\.model")
_DURATION: Final = re.compile(r"(\d+)(ms|s|m|h)")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


def parse(values: Mapping[str, Any]) -> Settings:
    """
    Settings from dotted names, e.g. ``{"turn.queue_max": 400, "turn.lease_ms": "10s"}``.

    Raises:
        BadSettingError: an unknown name, or a value that is not of its form.
    """
    plain: dict[str, Any] = {}
    lanes, agents = dict(LANES), dict[str, str | None]()
    for name, value in values.items():
        if name in KEYS:
            plain[KEYS[name].field] = _value(name, KEYS[name], value)
        elif match := _LANE_KEY.fullmatch(name):
            lane = lanes.get(match[1], Lane(1, 50))
            lanes[match[1]] = replace(lane, **{match[2]: _integer(name, value, least=0)})
        elif match := _AGENT_KEY.fullmatch(name):
            agents[match[1]] = str(value)
        else:
            raise BadSettingError(
                key=name, value=str(value), allowed=f"no such setting; known: {', '.join(KEYS)}"
            )
    return Settings(**plain, lanes=lanes, agents=agents)


def _value(name: str, key: Key, value: Any) -> int | str:
    if not key.choices:
        return _integer(name, value, least=key.least)
    if value not in key.choices:
        raise BadSettingError(
            key=name, value=str(value), allowed=f"one of {', '.join(key.choices)}"
        )
    return str(value)


def _integer(name: str, value: Any, *, least: int) -> int:
    number = value if isinstance(value, int) and not isinstance(value, bool) else None
    if isinstance(value, str):
        text = value.strip()
        match = _DURATION.fullmatch(text)
        if text.isdecimal():
            number = int(text)
        elif match and name.endswith("_ms"):
            number = int(match[1]) * _UNIT_MS[match[2]]
    if number is None or number < least:
        form = "a duration like 500ms, 60s, 5m, or" if name.endswith("_ms") else ""
        raise BadSettingError(
            key=name, value=str(value), allowed=f"{form} a whole number ≥ {least}".strip()
        )
    return number
