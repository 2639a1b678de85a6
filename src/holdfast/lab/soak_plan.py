"""
What a soak does and when: all of it drawn from one seed, before anything runs.

The same seed, numbers and duration give the same plan; how the processes interleave is the
machine's affair.  A message's text is what its model is going to do, a word a request:

    m12: rate eof never ok      429, a stream that ends too early, a tool call, then a reply

so a plan needs no script on the other side: see `soak_elsewhere.py`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CALLS", "OUTSIDE", "WOES", "Act", "Blow", "Plan", "make_plan", "read_plan"]

OUTSIDE: Final = -1  #: A sender without an agent, which nobody kills.

#: How a model fails, and how a turn uses tools.
WOES: Final = ("rate", "down", "error", "eof", "drop", "garbage", "hang", "slow")
CALLS: Final = ("safe", "never", "pair", "ask")
_ENDS: Final = ("ok", "ok", "ok", "ok", "ok", "long", "silent")

_LANES: Final = (("user", 10), ("cron", 3), ("heartbeat", 4), ("subagent", 2))
_POLICIES: Final = (
    ("enqueue", 8), ("collect", 5), ("steer", 5), ("interrupt", 2), ("reject", 2),
    ("rollback", 1),
)  # fmt: skip
_PEERS: Final = 4

PROCESSES: Final = (2, 16)
SESSIONS: Final = (1, 1_000)
DURATION_S: Final = (2.0, 86_400.0)
PER_PROCESS: Final = 4.0  #: Messages a second and process, at most.
PER_SESSION: Final = 0.6  #: The same, by session.
BLOW_EVERY_S: Final = 3.5
STOP_MOST_S: Final = 9.5  #: Every stopped process goes on within ten seconds.
STOP_SHORT_S: Final = 2.0  #: For the one process that has to live through it all.
FROZEN_KILL_MS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Act:
    """Something that a sender does."""

    n: int  #: Its name: idempotency keys and texts have it.
    at_s: float
    by: int  #: The runner that does it, or OUTSIDE.
    what: str  #: send | again (the same once more) | cancel | take_back | reset
    key: str
    of: int = 0  #: again, cancel, take_back: which message.
    text: str = ""
    lane: str = "user"
    policy: str | None = None
    sender: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Blow:
    """A signal to a runner.  `for_s`: SIGSTOP, and after so long SIGCONT; None: SIGKILL."""

    at_s: float
    runner: int
    for_s: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    processes: int
    sessions: int
    duration_s: float
    frozen_holder: str
    acts: tuple[Act, ...]
    blows: tuple[Blow, ...]

    def settings(self, hook_url: str) -> dict[str, Any]:
        """Bounds small enough to be met within a minute."""
        return {
            "turn.lease_ms": 3_000,
            "turn.max_attempts": 5,
            "turn.collect_quiet_ms": 300,
            "turn.collect_max": 4,
            "turn.queue_max": 25,
            "turn.progress_timeout_ms": 10_000,
            "abort.settle_ms": 1_000,
            "models.idle_timeout_ms": 2_500,
            "recovery.frozen_holder": self.frozen_holder,
            "recovery.frozen_kill_ms": FROZEN_KILL_MS,
            "lanes.user.concurrency": 8,
            "lanes.subagent.concurrency": 4,
            "lanes.cron.concurrency": 2,
            "lanes.heartbeat.concurrency": 2,
            "channels.hook.url": hook_url,
            "channels.hook.secret": self.secret,
            "channels.hook.part_chars": 200,
            "channels.hook.timeout_ms": 1_500,
        }

    @property
    def secret(self) -> str:
        digest = hashlib.sha256(f"soak {self.seed}".encode()).digest()
        return "whsec_" + base64.b64encode(digest).decode()

    def write(self, path: str) -> None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)


def read_plan(path: str) -> Plan:
    with open(path, encoding="utf-8") as file:
        told = json.load(file)
    acts, blows = told.pop("acts"), told.pop("blows")
    return Plan(
        **told, acts=tuple(Act(**each) for each in acts),
        blows=tuple(Blow(**each) for each in blows),
    )  # fmt: skip


def make_plan(*, processes: int, sessions: int, duration_s: float, seed: int) -> Plan:
    """
    Draw a plan.

    Raises:
        BadRequestError: a number out of its bounds.
    """
    for name, value, (least, most) in (
        ("processes", processes, PROCESSES),
        ("sessions", sessions, SESSIONS),
        ("duration", duration_s, DURATION_S),
    ):
        if not least <= value <= most:
            detail = f"{name} = {value:g}: it is {least:g} to {most:g}"
            raise BadRequestError(detail=detail)
    dice = Random(f"{seed} {processes} {sessions} {duration_s}")  # noqa: S311
    return Plan(
        seed, processes, sessions, duration_s,
        frozen_holder="kill" if seed % 2 else "report",
        acts=tuple(_acts(dice, processes, sessions, duration_s)),
        blows=tuple(_blows(dice, processes, duration_s)),
    )  # fmt: skip


# ------------------------------------------------------------------------------- senders


def _acts(dice: Random, processes: int, sessions: int, duration_s: float) -> Iterator[Act]:
    a_second = min(PER_PROCESS * processes, max(1.0, PER_SESSION * sessions))
    at_s, n = 0.0, 0
    sent: dict[int, list[Act]] = {}
    while (at_s := at_s + dice.expovariate(a_second / 2)) < duration_s:
        by = dice.choice([OUTSIDE, *range(processes)])
        key = f"agent:main:soak:{dice.randrange(sessions)}"
        # Bursts: a queue of one is no queue.
        lane, policy = _drawn(dice, _LANES), _drawn(dice, _POLICIES)
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            n += 1
            if dice.random() < 0.15 and sent.get(by):
                yield _later(dice, n, at_s, by, sent[by])
                continue
            if dice.random() < 0.3:
                lane, policy = _drawn(dice, _LANES), _drawn(dice, _POLICIES)
            act = _message(dice, n, at_s, by, key, lane, policy, sessions)
            sent.setdefault(by, []).append(act)
            yield act


def _later(dice: Random, n: int, at_s: float, by: int, sent: list[Act]) -> Act:
    """Something about an earlier message, of the last ones: those may still be under way."""
    of = dice.choice(sent[-6:])
    what = dice.choice(("again", "again", "cancel", "cancel", "take_back", "reset"))
    return Act(n, at_s, by, what, of.key, of=of.n)


def _message(
    dice: Random, n: int, at_s: float, by: int, key: str, lane: str, policy: str, sessions: int
) -> Act:
    return Act(
        n, at_s, by, "send", key,
        text=f"m{n}: {' '.join(_words(dice, sessions))}",
        lane=lane,
        policy=None if lane == "heartbeat" else policy,
        sender=dice.choice(("ann", "ann", "bob")) if lane == "user" else None,
        target=_target(key, lane),
    )  # fmt: skip


def _target(key: str, lane: str) -> str | None:
    """By key and lane: only what goes to one place can be collected into one turn."""
    at = zlib.crc32(f"{key} {lane}".encode())
    return f"hook:peer-{at % _PEERS}" if at % 5 < 3 else None


def _words(dice: Random, sessions: int) -> Iterator[str]:
    while dice.random() < 0.35:
        word = dice.choice((*WOES, *CALLS, *CALLS))
        if word == "ask":
            whom = dice.randrange(sessions)
            # A session of its own, or one that others use too: then there may be a cycle.
            word = f"ask={'s' if dice.random() < 0.6 else ''}{whom}"
        yield word
    yield dice.choice(_ENDS)


def _drawn(dice: Random, weights: tuple[tuple[str, int], ...]) -> str:
    names, counts = zip(*weights, strict=True)
    return str(dice.choices(names, counts)[0])


# --------------------------------------------------------------------------------- signals


def _blows(dice: Random, processes: int, duration_s: float) -> Iterator[Blow]:
    """Runner 0 is stopped, and never killed: its memory is looked at from end to end."""
    at_s = 0.0
    while (at_s := at_s + dice.uniform(0.4, 1.6) * BLOW_EVERY_S) < duration_s:
        runner = dice.randrange(processes)
        if runner == 0:
            yield Blow(at_s, runner, dice.uniform(0.1, STOP_SHORT_S))
        elif dice.random() < 0.55:
            yield Blow(at_s, runner, None)
        else:
            yield Blow(at_s, runner, min(STOP_MOST_S, dice.expovariate(1 / 3.0) + 0.1))


def tally(acts: tuple[Act, ...]) -> Mapping[str, int]:
    """How many acts of each kind."""
    found: dict[str, int] = {}
    for act in acts:
        found[act.what] = found.get(act.what, 0) + 1
    return found
