"""
The founding race, reproduced: who answers whom when lanes share a session?

A heartbeat, a channel and a direct conversation write to one transcript, each from a process
of its own, while their model calls are in flight (thread #85913: 122 takeovers in three days,
six in a hundred contended replies dropped in silence).

    guard=off     nobody coordinates: read the transcript, append the question, call the model,
                  append the reply
    guard=fence   a lock around each write, and a fingerprint that tells after the model call
                  whether anybody else has written: then the reply is dropped (a takeover)
    guard=turns   the same messages through Holdfast

Nothing here counts while it runs.  The numbers come from reading the transcript afterwards,
and `oracle.py` says what is read.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import jsonl
from holdfast._core.tree import VERSION
from holdfast._stamps import now_iso, uuid7
from holdfast.errors import BadRequestError
from holdfast.lab import oracle
from holdfast.lab.crew import Crew
from holdfast.lab.figures import quiet, scratch
from holdfast.testing.model_server import ModelServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from holdfast.lab.figures import Report
    from holdfast.lab.oracle import Exchange, Facts

__all__ = ["GUARDS", "picture", "run_race", "verdict"]

GUARDS: Final = ("off", "fence", "turns")
LANES_MAX: Final = 16  #: Each is a process with a model client: some 100 MB.
TURNS_MAX: Final = 1_000

#: With seven tokens, a third of a second an answer: long beside the milliseconds by which
#: the processes get off the mark one after another, so their calls always overlap.
TOKEN_DELAY_S: Final = 0.05

#: Lane and source, in the thread's words.  More lanes are more direct conversations.
_LANES: Final = (("heartbeat", "heartbeat"), ("user", "channel"), ("user", "direct"))


def run_race(
    *,
    lanes: int = 3,
    turns: int = 5,
    guard: str = "turns",
    directory: str | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """
    Run the race and judge it.

    Args:
        lanes: processes; each sends its messages one after another.
        turns: messages a lane.
        guard: one of `GUARDS`.
        directory: where the state goes, and stays to be looked at; None: a scratch
            directory that is removed.
        report: told the picture and the verdict, line by line.

    Returns:
        The JSON of `holdfast race`.

    Raises:
        BadRequestError: no such guard, or not so many lanes or turns.
    """
    _check(lanes, turns, guard)
    names, told = _names(lanes), report or quiet
    told(f"{lanes} processes, one session, {turns} messages each, guard={guard} …")
    with nullcontext(directory) if directory else scratch(None) as state:
        assert state is not None
        os.makedirs(state, mode=0o700, exist_ok=True)
        path, takeovers = _raced(guard, state, names, turns)
        facts = oracle.read(path)
    for line in picture(facts, [label for label, _, _ in names]):
        told(line)
    if directory:
        told(f"transcript: {path}")
    told(verdict(guard, facts, takeovers))
    return _result(guard, lanes, turns, facts, takeovers)


def _check(lanes: int, turns: int, guard: str) -> None:
    if guard not in GUARDS:
        raise BadRequestError(
            detail=f"no such guard: {guard!r}; available: {', '.join(GUARDS)}",
            hint="off and fence show the loss, turns shows it prevented",
        )
    if not 1 <= lanes <= LANES_MAX:
        raise BadRequestError(detail=f"lanes = {lanes}: it is 1 to {LANES_MAX}")
    if not 1 <= turns <= TURNS_MAX:
        raise BadRequestError(detail=f"turns = {turns}: it is 1 to {TURNS_MAX}")


def _names(lanes: int) -> list[tuple[str, str, str]]:
    """(label, lane, source), the thread's own first."""
    more = [("user", f"direct-{n}") for n in range(2, lanes - len(_LANES) + 2)]
    named = [*_LANES, *more][:lanes]
    return [
        (lane if lane == source else f"{lane}/{source}", lane, source) for lane, source in named
    ]


# --------------------------------------------------------------------------------- running


def _raced(
    guard: str, state: str, names: Sequence[tuple[str, str, str]], turns: int
) -> tuple[str, int]:
    """The transcript, and how many takeovers its lanes have counted."""
    if guard == "turns":
        return _turns(state, names, turns), 0  # Nobody's finished reply is refused there.
    return _by_hand(_WORK + _HANDS[guard], state, names, turns)


def _by_hand(
    work: str, state: str, names: Sequence[tuple[str, str, str]], turns: int
) -> tuple[str, int]:
    path = os.path.join(state, f"race-{uuid7()}.jsonl")
    header = {"type": "session", "version": VERSION, "id": uuid7(), "timestamp": now_iso()}
    with open(path, "wb") as file:
        file.write(jsonl.encode([{**header, "cwd": state}]))

    def start(crew: Crew, env: dict[str, str]) -> None:
        for label, _, _ in names:
            crew.start(label, work, env=env, path=path, label=label, turns=turns)

    done = _run(start)
    return path, sum((lane or {}).get("takeovers", 0) for lane in done.values())


def _turns(state: str, names: Sequence[tuple[str, str, str]], turns: int) -> str:
    key = f"agent:main:race:{uuid7()}"  # A session of its own, whatever else lives there.

    def start(crew: Crew, env: dict[str, str]) -> None:
        for label, lane, source in names:
            crew.start(
                label, _WORK + "through_turns", env=env, directory=state, key=key,
                label=label, lane=lane, source=source, turns=turns,
            )  # fmt: skip

    return str(_run(start)[names[0][0]]["path"])


_WORK: Final = "holdfast.lab.race_lane:"
_HANDS: Final = {"off": "unguarded", "fence": "fenced"}


def _run(start: Callable[[Crew, dict[str, str]], None]) -> dict[str, Any]:
    with ModelServer(token_delay_s=TOKEN_DELAY_S) as server, Crew() as crew:
        start(crew, {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "race"})
        crew.wait("ready")
        crew.order("go")
        return dict(crew.wait("done"))


# --------------------------------------------------------------------------------- telling


def _result(guard: str, lanes: int, turns: int, facts: Facts, takeovers: int) -> dict[str, Any]:
    return {
        "guard": guard,
        "lanes": lanes,
        "turns": turns,
        "accepted": len(facts.exchanges),
        "replied": facts.seen,
        "lost": len(facts.exchanges) - facts.seen,
        "takeovers": takeovers,
        "interleaved": facts.interleaved,
        "transcript_valid": not facts.problems,
        "timeline": [
            {"at_ms": at_ms, "lane": lane, "event": event}
            for at_ms, lane, event in _timeline(facts)
        ],
    }


def verdict(guard: str, facts: Facts, takeovers: int = 0) -> str:
    """The last line, for people."""
    asked = len(facts.exchanges)
    valid = "" if not facts.problems else f"; the transcript is broken: {facts.problems[0]}"
    return (
        f"guard={guard}: {asked} asked, {facts.seen} answered where the next turn can see it,"
        f" {asked - facts.seen} lost, {facts.interleaved} interleaved"
        f"{f', {takeovers} takeovers' if takeovers else ''}{valid}"
    )


def _timeline(facts: Facts) -> list[tuple[int, str, str]]:
    """(milliseconds since the first question, lane, event), by the entries' own times."""
    if not facts.exchanges:
        return []
    start = min(exchange.asked_at for exchange in facts.exchanges)
    found = [event for exchange in facts.exchanges for event in _events(exchange, start)]
    return sorted(found, key=lambda event: event[0])


def _events(exchange: Exchange, start: datetime) -> list[tuple[int, str, str]]:
    lane, n = exchange.text.partition(":")[0].rsplit(" ", 1)
    ended = "answered" if exchange.seen else "lost"
    times = [(exchange.asked_at, "asked"), *((at, ended) for at in exchange.replied_at)]
    return [
        (round((at - start).total_seconds() * 1000), lane, f"{what} {n}") for at, what in times
    ]


def picture(facts: Facts, lanes: Sequence[str]) -> list[str]:
    """The timeline, one column a lane; a bar where a model call is in flight."""
    width = max(12, *(len(lane) for lane in lanes))
    lines = ["     ms  " + "  ".join(lane.ljust(width) for lane in lanes).rstrip()]
    flying: set[str] = set()
    for at_ms, lane, event in _timeline(facts):
        cells = dict.fromkeys(flying, "│") | {lane: event}
        lines.append(f"{at_ms:7}  " + "  ".join(cells.get(x, "").ljust(width) for x in lanes))
        flying = flying | {lane} if event.startswith("asked") else flying - {lane}
    return [line.rstrip() for line in lines]
