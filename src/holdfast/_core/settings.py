"""
All settings, checked, and how they come from what was given.

Whatever is unknown or malformed is refused by name; nothing is ignored in silence.  That
holds for every value that was given, also for one that a later source replaces.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from holdfast._core import settings_forms as forms
from holdfast._core.settings_table import (
    FAMILIES,
    FOUNDING_NAMES,
    KEYS,
    POLICIES,
    Key,
    find,
    parents,
)
from holdfast.errors import BadSettingError, UnknownLaneError, UnknownPolicyError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

__all__ = [
    "KEYS",
    "LANES",
    "POLICIES",
    "AgentSettings",
    "ChannelSettings",
    "Given",
    "Identity",
    "Key",
    "Lane",
    "Problem",
    "Settings",
    "Settled",
    "default_of",
    "each_given",
    "parse",
    "settle",
]

#: A model of this name is the built-in agent that needs no key.
DEMO: Final = "demo"


@dataclass(frozen=True, slots=True)
class Lane:
    concurrency: int = 1  #: Turns of this lane at once, over the whole store.
    priority: int = 50  #: Higher runs first.
    policy: str | None = None  #: None: as `Settings.policy`.


LANES: Final = {
    "user": Lane(32, 100),
    "subagent": Lane(16, 60),
    "cron": Lane(8, 40),
    "heartbeat": Lane(2, 20),
    "maintenance": Lane(2, 10),
}


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """
    One agent by its settings.

    With a *model* or an *object* it can be run from them; with neither it is only known, and
    some process runs it that was given it otherwise.  An object stands alone.
    """

    model: str | None = None
    instructions: str | None = None
    tools: tuple[str, ...] = ()  #: Each ``module:function``.
    object: str | None = None  #: ``module:attribute``.


@dataclass(frozen=True, slots=True)
class Identity:
    """A person who writes from several places."""

    peers: tuple[str, ...] = ()  #: Each ``<channel>:<peer>``, or ``<peer>`` on any channel.


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """One channel: what replies are delivered by, and messages come in by."""

    kind: str = "webhook"
    url: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    old_secret: str | None = field(default=None, repr=False)
    part_chars: int = 4_000
    timeout_ms: int = 10_000
    ambiguous: str = "resend"
    agent: str = "main"
    session: str | None = None
    senders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, checked.  Make one with `parse`."""

    write_lock_acquire_timeout_ms: int = 60_000
    write_lock_stale_ms: int = 1_800_000
    write_lock_max_hold_ms: int = 30_000
    on_rewritten: str = "rerun"
    dm_scope: str = "main"
    durability: str = "turn"
    lease_ms: int = 30_000
    policy: str = "enqueue"
    collect_quiet_ms: int = 500
    collect_max: int = 20
    heartbeats_yield: bool = True
    progress_timeout_ms: int = 300_000
    max_ms: int = 0
    wait_warn_ms: int = 2_000
    queue_max: int = 200
    attempts_max: int = 3
    reruns_max: int = 1
    tool_result_bytes_max: int = 4_194_304
    settle_ms: int = 2_000
    stuck_warn_ms: int = 120_000
    frozen_holder: str = "report"
    frozen_kill_ms: int = 30_000
    idle_timeout_ms: int = 120_000
    keep_days: int = 30
    events_max: int = 100_000
    allow_shared_filesystem: bool = False
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8787
    gateway_token: str | None = field(default=None, repr=False)  #: Never shown, never logged.
    gateway_allowed_hosts: tuple[str, ...] = ()
    body_bytes_max: int = 8_388_608
    message_bytes_max: int = 1_048_576
    connections_max: int = 1_000
    drain_ms: int = 25_000
    live_log_minutes: int = 15
    cancel_on_disconnect: bool = False
    lanes: Mapping[str, Lane] = field(default_factory=lambda: dict(LANES))
    #: Agent id → what is set about it.  Naming an agent makes it known.
    agents: Mapping[str, AgentSettings] = field(default_factory=dict)
    #: Person → who that is; see `addressing.session_key`.
    identities: Mapping[str, Identity] = field(default_factory=dict)
    channels: Mapping[str, ChannelSettings] = field(default_factory=dict)

    def lane(self, name: str) -> Lane:
        try:
            return self.lanes[name]
        except KeyError:
            raise UnknownLaneError(lane=name[:80], known=sorted(self.lanes)) from None

    def checked_policy(self, name: str | None, lane: str) -> str:
        """The message's own, else its lane's, else `turn.policy`."""
        name = name or self.lane(lane).policy or self.policy
        if name not in POLICIES:
            raise UnknownPolicyError(policy=name[:80], available=list(POLICIES))
        return name


class Given(NamedTuple):
    """One value, as somebody gave it."""

    name: str
    value: Any
    source: str = ""  #: Where, in words: "holdfast.toml", "environment HOLDFAST_…".
    called: str = ""  #: The founding system's name for it, if that was used.


class Problem(NamedTuple):
    """One value that is refused, and why."""

    given: Given
    error: BadSettingError


class Settled(NamedTuple):
    settings: Settings  #: Of what is good, if there are problems.
    won: Mapping[str, Given]  #: Name → the value that is in force.  The rest are defaults.
    problems: tuple[Problem, ...]
    notices: tuple[str, ...]  #: Older names that were used, one sentence each.


def default_of(name: str) -> Any:
    """The default of a setting in `KEYS`."""
    return next(f.default for f in fields(Settings) if f.name == KEYS[name].field)


def parse(values: Mapping[str, Any]) -> Settings:
    """
    Settings from dotted names, e.g. ``{"turn.queue_max": 400, "turn.lease_ms": "10s"}``.

    Raises:
        BadSettingError: the first unknown name, or value that is not of its form.
    """
    settled = settle(each_given(values))
    if settled.problems:
        raise settled.problems[0].error
    return settled.settings


def each_given(values: Mapping[str, Any], source: str = "") -> Iterator[Given]:
    """*values* by dotted name, with the founding system's names put into ours."""
    for name, value in values.items():
        if name in FOUNDING_NAMES:
            yield Given(FOUNDING_NAMES[name], value, source, called=name)
        else:
            yield Given(str(name), value, source)


def settle(given: Iterable[Given]) -> Settled:
    """
    What is in force, of values in the order of their sources: later ones win.

    A founding name gives way to ours wherever that stands.  Raises nothing: everything that
    is wrong is in `Settled.problems`.
    """
    won, read = dict[str, Given](), dict[str, Any]()
    problems, notices = list[Problem](), list[str]()
    told = list(given)
    for each in sorted(told, key=lambda each: not each.called):  # Stable: founding ones first.
        try:
            read[each.name] = _read(each)
        except BadSettingError as error:
            problems.append(_problem(each, error))
        else:
            won[each.name] = each
    for each in told:
        if each.called:
            where = f"{each.source}: " if each.source else ""
            lost = "" if won.get(each.name) is each else ", which is given too and wins"
            notices.append(f"{where}{each.called} is now {each.name}{lost}")
    problems += _clashes(won, read, {each.name for each in told})
    return Settled(_built(read), won, tuple(problems), tuple(notices))


def _read(given: Given) -> Any:
    key = find(given.name)
    if key is not None:
        return forms.read(given.name, key, given.value, called=given.called or None)
    if given.value == {}:  # A table without anything in it: it names a member, or nothing.
        family, _, member = given.name.partition(".")
        inside = family in FAMILIES and find(
            f"{given.name}.{next(iter(FAMILIES[family].keys))}"
        )
        if (inside and "." not in member) or given.name in parents():
            return None
    raise forms.unknown(given.name, given.value)


def _problem(given: Given, error: BadSettingError) -> Problem:
    if given.source:
        error.hint = f"mend it in {given.source}"
    return Problem(given, error)


def _clashes(
    won: Mapping[str, Given], read: Mapping[str, Any], told: Collection[str]
) -> Iterator[Problem]:
    """Values that are good alone, but not together.  *told*: all names, the refused too."""
    for name, given in won.items():
        family, agent, last = [*name.split("."), "", ""][:3]
        if family != "agents" or last == "":
            continue
        model = f"agents.{agent}.model"
        own = won.get(f"agents.{agent}.object")
        if last != "object" and own is not None:
            where = f" ({own.source})" if own.source else ""
            wrong = f"not together with {own.name}{where}: an object has its own"
        elif last in {"instructions", "tools"} and model not in told:
            wrong = f"only together with {model}"
        elif last in {"instructions", "tools"} and read.get(model) == DEMO:
            wrong = "not with the built-in demo, which cannot follow it"
        else:
            continue
        value = str(given.value)[: forms.SHOWN_CHARS_MAX]
        yield _problem(given, BadSettingError(key=name, value=value, allowed=wrong))


def _built(read: Mapping[str, Any]) -> Settings:
    plain: dict[str, Any] = {}
    members: dict[str, dict[str, dict[str, Any]]] = {family: {} for family in FAMILIES}
    for name, value in read.items():
        if name in KEYS:
            plain[KEYS[name].field] = value
        elif name.count("."):
            family, member, last = [*name.split("."), ""][:3]
            if family in members:
                members[family].setdefault(member, {}).update({last: value} if last else {})
    lanes = {
        name: _lane(LANES.get(name, Lane()), told) for name, told in members["lanes"].items()
    }
    agents = {name: AgentSettings(**told) for name, told in members["agents"].items()}
    identities = {name: Identity(**told) for name, told in members["identities"].items()}
    lanes = {**LANES, **lanes}
    channels = {name: ChannelSettings(**told) for name, told in members["channels"].items()}
    return Settings(
        **plain, lanes=lanes, agents=agents, identities=identities, channels=channels
    )


def _lane(lane: Lane, told: Mapping[str, Any]) -> Lane:
    return replace(lane, **told)
