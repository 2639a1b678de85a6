"""
Every setting this version has, as data: what it is called, what it may be, what it is for.

What reads a value, the JSON Schema, `holdfast config` and `docs/settings.md` all go by this
table.  A default is not here: it is the default of the field in `settings.Settings`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from holdfast._core.settings_families import FAMILIES, POLICIES, PRIORITY_MOST
from holdfast._core.settings_kinds import Family, Form, Key, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DM_SCOPES",
    "DURABILITY",
    "FAMILIES",
    "FOUNDING_NAMES",
    "FOUNDING_VARIABLES",
    "FROZEN_HOLDER",
    "KEYS",
    "POLICIES",
    "PRIORITY_MOST",
    "Family",
    "Form",
    "Key",
    "Kind",
    "find",
    "parents",
    "unit_of",
]

FROZEN_HOLDER: Final = ("report", "kill")
DM_SCOPES: Final = ("main", "per-peer", "per-channel-peer", "per-account-channel-peer")
DURABILITY: Final = ("always", "turn", "os")
ON_REWRITTEN: Final = ("rerun", "fail")

#: Bounds that only a slip of the hand exceeds; under them no timer and no column overflows.
DURATION_MOST_MS: Final = 365 * 24 * 3_600_000
PORT_MOST: Final = 65_535

#: The end of a duration's name → its unit, and the unit's milliseconds.
_UNITS: Final = {
    "_ms": ("milliseconds", 1),
    "_s": ("seconds", 1_000),
    "_minutes": ("minutes", 60_000),
}


_HOST: Final = Form(r"[A-Za-z0-9.:_%\[\]-]+", "a host name or address")
_TOKEN: Final = Form(r"[!-~]+", "visible ASCII characters without spaces")


KEYS: Final[Mapping[str, Key]] = {
    "session.write_lock.acquire_timeout_ms": Key(
        "write_lock_acquire_timeout_ms", Kind.DURATION,
        "how long one writer waits for the write lock", 1,
    ),
    "session.write_lock.max_hold_ms": Key(
        "write_lock_max_hold_ms", Kind.DURATION,
        "after this our own watchdog ends our own hold; nobody else's hold is ever ended", 1,
    ),
    "session.write_lock.stale_ms": Key(
        "write_lock_stale_ms", Kind.DURATION,
        "a claim older than this is reported, never removed: age alone removes nothing", 1,
    ),
    "session.on_rewritten": Key(
        "on_rewritten", Kind.CHOICE,
        "after a takeover (its transcript was rewritten) a turn is run again, or failed",
        choices=ON_REWRITTEN,
    ),
    "session.dm_scope": Key(
        "dm_scope", Kind.CHOICE,
        "which direct messages share a session: all, or those of one peer, channel, account",
        choices=DM_SCOPES,
    ),
    "session.durability": Key(
        "durability", Kind.CHOICE,
        "what is synced to the medium: every append, every turn, or what the system likes",
        choices=DURABILITY,
    ),
    "turn.lease_ms": Key(
        "lease_ms", Kind.DURATION, "a runner that is silent for so long loses its turns", 300
    ),
    "turn.policy": Key(
        "policy", Kind.CHOICE, "what a message to a busy session does", choices=POLICIES
    ),
    "turn.collect_quiet_ms": Key(
        "collect_quiet_ms", Kind.DURATION,
        "collect: a burst is answered as one turn once it was quiet for so long",
    ),
    "turn.collect_max": Key(
        "collect_max", Kind.INTEGER, "collect: so many messages at most become one turn", 1
    ),
    "turn.heartbeats_yield": Key(
        "heartbeats_yield", Kind.BOOLEAN,
        "a person's message ends the heartbeat that runs, twice in a row at most",
    ),
    "turn.progress_timeout_ms": Key(
        "progress_timeout_ms", Kind.DURATION,
        "a run in which neither model, tool nor the program of hf.turn has moved for so long is"
        " aborted", 1,
    ),
    "turn.max_ms": Key(
        "max_ms", Kind.DURATION, "how long one run of a turn may take; 0 = no bound"
    ),
    "turn.wait_warn_ms": Key(
        "wait_warn_ms", Kind.DURATION,
        "a turn that has waited so long is told of in the log, with what it waits for", 1,
    ),
    "turn.queue_max": Key("queue_max", Kind.INTEGER, "how many turns of a session may wait", 1),
    "turn.max_attempts": Key(
        "attempts_max", Kind.INTEGER, "after so many attempts a turn ends as failed", 1
    ),
    "turn.max_reruns": Key(
        "reruns_max", Kind.INTEGER, "how often a turn is run again after a takeover"
    ),
    "turn.tool_result_max_bytes": Key(
        "tool_result_bytes_max", Kind.INTEGER,
        "a tool whose result is larger, as JSON, has failed", 1_024, 33_554_432,
    ),
    "abort.settle_ms": Key(
        "settle_ms", Kind.DURATION, "how long an attempt that must end may take to do so", 1
    ),
    "recovery.warn_ms": Key(
        "stuck_warn_ms", Kind.DURATION,
        "a run without progress for so long is told of in the log", 1,
    ),
    "recovery.frozen_holder": Key(
        "frozen_holder", Kind.CHOICE,
        "what is done about a stopped process that keeps others waiting (serve: kill)",
        choices=FROZEN_HOLDER,
    ),
    "recovery.frozen_kill_ms": Key(
        "frozen_kill_ms", Kind.DURATION, "with kill: how long it may stay stopped", 1000
    ),
    "models.idle_timeout_ms": Key(
        "idle_timeout_ms", Kind.DURATION,
        "after such a silence of the model an attempt has failed", 1,
    ),
    "store.keep_days": Key(
        "keep_days", Kind.INTEGER, "how long an ended turn's row is kept", 1
    ),
    "store.events_max": Key(
        "events_max", Kind.INTEGER, "how many events are kept; the oldest go first", 1000
    ),
    "store.allow_shared_filesystem": Key(
        "allow_shared_filesystem", Kind.BOOLEAN,
        "go on where several machines may share the state directory, without the guarantees",
    ),
    "gateway.host": Key(
        "gateway_host", Kind.TEXT,
        "the address to listen on; off loopback a token must be given", form=_HOST,
    ),
    "gateway.port": Key(
        "gateway_port", Kind.INTEGER, "the port to listen on; 0 = a free one", most=PORT_MOST
    ),
    "gateway.token": Key(
        "gateway_token", Kind.SECRET,
        "the bearer token of every request; made at the first start if none is given",
        form=_TOKEN,
    ),
    "gateway.allowed_hosts": Key(
        "gateway_allowed_hosts", Kind.TEXTS,
        "names that a request's Host may have, beside the address listened on", form=_HOST,
    ),
    "gateway.max_body_bytes": Key(
        "body_bytes_max", Kind.INTEGER, "a larger request body is refused", 1
    ),
    "gateway.max_message_bytes": Key(
        "message_bytes_max", Kind.INTEGER, "a larger message is refused", 1
    ),
    "gateway.max_connections": Key(
        "connections_max", Kind.INTEGER, "so many connections are served at once", 1
    ),
    "gateway.drain_ms": Key(
        "drain_ms", Kind.DURATION, "how long running turns may go on after SIGTERM"
    ),
    "gateway.live_log_minutes": Key(
        "live_log_minutes", Kind.DURATION, "how long a turn's live log outlives the turn"
    ),
    "gateway.cancel_on_disconnect": Key(
        "cancel_on_disconnect", Kind.BOOLEAN,
        "cancel the turn of a completion whose client goes away",
    ),
}  # fmt: skip


#: Names of the founding system → ours.  Taken with a notice; ours win.
FOUNDING_NAMES: Final[Mapping[str, str]] = {
    "session.writeLock.acquireTimeoutMs": "session.write_lock.acquire_timeout_ms",
    "session.writeLock.maxHoldMs": "session.write_lock.max_hold_ms",
    "session.writeLock.staleMs": "session.write_lock.stale_ms",
}
#: Its environment variables → our names.
FOUNDING_VARIABLES: Final[Mapping[str, str]] = {
    "OPENCLAW_SESSION_WRITE_LOCK_ACQUIRE_TIMEOUT_MS": "session.write_lock.acquire_timeout_ms",
    "OPENCLAW_SESSION_WRITE_LOCK_MAX_HOLD_MS": "session.write_lock.max_hold_ms",
    "OPENCLAW_SESSION_WRITE_LOCK_STALE_MS": "session.write_lock.stale_ms",
    "OPENCLAW_EMBEDDED_ABORT_SETTLE_TIMEOUT_MS": "abort.settle_ms",
}


def find(name: str) -> Key | None:
    """The setting called *name*; None: there is none."""
    if name in KEYS:
        return KEYS[name]
    family, _, rest = name.partition(".")
    member, _, last = rest.partition(".")
    if family not in FAMILIES or not re.fullmatch(FAMILIES[family].form.pattern, member):
        return None
    return FAMILIES[family].keys.get(last)


def parents() -> frozenset[str]:
    """The tables that settings stand in, except the members of families."""
    names = [*KEYS, *FOUNDING_NAMES, *(f"{family}." for family in FAMILIES)]
    return frozenset(
        name[:at] for name in names for at, letter in enumerate(name) if letter == "."
    )


def unit_of(name: str) -> tuple[str, int, int]:
    """A duration's unit by its name: what it is called, its milliseconds, how many at most."""
    called, unit_ms = next(found for end, found in _UNITS.items() if name.endswith(end))
    return called, unit_ms, DURATION_MOST_MS // unit_ms
