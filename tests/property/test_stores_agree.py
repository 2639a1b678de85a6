"""
Whatever is asked of them, in whatever order, files and memory answer alike.

The SQL of the files store is the specification; the memory store is a second reading of it.
Method: random calls, valid or not, to both; every answer, every error and all that can be
read afterwards has to be the same, but for ids and times that the store makes itself.  The
clock of both stands still, but where a call moves it on.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._core.settings import Lane, Settings
from holdfast._core.turns import Event
from holdfast.backends.files import fs
from holdfast.backends.files.store import FilesStore
from holdfast.backends.memory import MemoryStore, World
from holdfast.errors import HoldfastError
from holdfast.ports import ControlStore, Store
from holdfast.types import (
    Admission,
    Commit,
    FencingToken,
    Owner,
    OwnerId,
    SessionId,
    ToolCall,
    Turn,
    TurnId,
)

OWNERS = [Owner(OwnerId(f"owner-{n}"), n, n, "boot", 1, "host") for n in range(3)]
KEYS = ["agent:main:a", "agent:main:b", "agent:dev:c"]
ALIASES = ["agent:main:x", "agent:main:y"]
LANES = {"user": Lane(1, 100), "cron": Lane(2, 40), "heartbeat": Lane(1, 20)}
POLICIES = ["enqueue"] * 3 + ["collect", "steer"] * 2 + ["reject", "interrupt", "rollback"]
ABORTS = ["cancelled"] * 3 + ["interrupted", "preempted", "max_time", "no_progress"]
STAMPS = {"accepted_at", "started_at", "ended_at", "created_at", "since", "at", "asked_at"}
CLOCKED = {"accepted_ms", "not_before_ms", "abort_at_ms"}  #: By the store's clock.


class Side:
    """One store, what it calls the sessions and requests, and when its clock began."""

    def __init__(self, control: ControlStore) -> None:
        self.control = control
        self.sessions: list[SessionId] = []  #: As they were seen first.
        self.requests: list[str] = []
        self.began_ms: int | None = None

    def session(self, at: float) -> SessionId | None:
        return self.sessions[int(at * len(self.sessions))] if self.sessions else None

    def _see(self, value: Any) -> dict[str, Any]:
        """The fields of *value*, without what the store has made up itself."""
        found = {each.name: getattr(value, each.name) for each in fields(value)}
        if found.get("session_id") and found["session_id"] not in self.sessions:
            self.sessions.append(found["session_id"])
        if "request_id" in found and found["request_id"] not in self.requests:
            self.requests.append(found["request_id"])
        if isinstance(value, Turn) and self.began_ms is None:
            self.began_ms = value.accepted_ms
        for name in STAMPS & found.keys():
            found[name] = found[name] is not None
        for name in CLOCKED & found.keys():
            found[name] = found[name] and found[name] - (self.began_ms or 0)
        found.pop("transcript", None)
        return found

    def plain(self, value: Any) -> Any:
        """*value* without what the store has made up itself."""
        if is_dataclass(value) and not isinstance(value, type):
            return {name: self.plain(each) for name, each in self._see(value).items()}
        if isinstance(value, dict):
            return {self.plain(name): self.plain(each) for name, each in value.items()}
        if isinstance(value, set):
            return sorted(self.plain(each) for each in value)
        if isinstance(value, list | tuple):
            return [self.plain(each) for each in value]
        if value in self.sessions:
            return f"session {self.sessions.index(value)}"
        return f"request {self.requests.index(value)}" if value in self.requests else value

    async def answer(self, call: Callable[[Side], Awaitable[Any]]) -> Any:
        try:
            return self.plain(await call(self))
        except HoldfastError as error:
            told = {k: v for k, v in vars(error).items() if k not in {"path", "detail", "hint"}}
            return type(error).__name__, self.plain(told)
        except AssertionError as error:
            return "assertion", str(error)


class Script:
    """Makes up calls.  It knows turns, tokens and sessions by what was answered so far."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.turns: list[TurnId] = []
        self.tokens = [FencingToken(1)]
        self.count = 0

    def call(self, name: str, seed: int) -> Callable[[Side], Awaitable[Any]]:
        made: Callable[[Side], Awaitable[Any]] = getattr(self, name)(random.Random(seed))
        return made

    def _turn(self, dice: random.Random) -> TurnId:
        return dice.choice([*self.turns[-6:], TurnId("nobody")])

    def step(self, dice: random.Random) -> Any:
        step_ms, stepped = dice.choice([300, 999, 1_000, 5_000, 60_000]), False

        async def run(_: Side) -> None:
            nonlocal stepped
            self.now_ms += 0 if stepped else step_ms
            stepped = True

        return run

    def _token(self, dice: random.Random) -> FencingToken:
        return dice.choice(self.tokens[-3:])

    # ------------------------------------------------------------------------ owners

    def register(self, dice: random.Random) -> Any:
        owner = dice.choice(OWNERS)
        return lambda side: side.control.register(owner)

    def register_runner(self, dice: random.Random) -> Any:
        owner, agents = dice.choice(OWNERS), dice.sample(["main", "dev"], dice.randint(1, 2))
        permanent = dice.random() < 0.7
        return lambda side: side.control.register_runner(
            owner.owner_id, agents, permanent=permanent
        )

    def owner_moves(self, dice: random.Random) -> Any:
        owner = dice.choice(OWNERS).owner_id
        name = dice.choice(["beat"] * 4 + ["set_draining", "leave", "bury"])
        more = ["why"] if name == "bury" else []
        return lambda side: getattr(side.control, name)(owner, *more)

    # --------------------------------------------------------------------- admission

    def admit(self, dice: random.Random) -> Any:
        self.count += 1
        key = dice.choice([*KEYS, *KEYS, *ALIASES])
        text = dice.choice(["one", "two"])
        lane = dice.choice(["user"] * 4 + ["cron", "heartbeat", "heartbeat", "other"])
        asked = Admission(
            turn_id=TurnId(f"turn-{self.count}"), session_key=key,
            agent_id=key.split(":")[1], text=text, lane=lane,
            source="test", priority=dice.choice([10, 20, 60, 100, 150]),
            policy=dice.choice(POLICIES), queue_max=dice.choice([3, 50, 50]),
            idempotency_key=dice.choice([None, None, "k1", "k2"]), request_hash=text,
            home=dice.choice([None, None, *(each.owner_id for each in OWNERS)]),
            bound=dice.random() < 0.1, instructions=dice.choice([None, None, "brief"]),
            seed=dice.choice([None, None, None, b"[]"]), model=dice.choice([None, None, "m"]),
            sender=dice.choice([None, None, "ann"]),
            quiet_ms=dice.choice([0, 500, 2_000]), collect_max=dice.choice([0, 2, 5, 5]),
            parent=dice.choice([None, self._turn(dice)]), awaited=dice.random() < 0.5,
        )  # fmt: skip
        if asked.home is None:  # Bound to nobody is no thing.
            asked = replace(asked, bound=False)
        self.turns.append(asked.turn_id)
        known = dice.choice([(), ("dev",)])
        return lambda side: side.control.admit(asked, known)

    def make_alias(self, dice: random.Random) -> Any:
        alias, key = dice.choice([*ALIASES, KEYS[0]]), dice.choice([*KEYS, *ALIASES])
        return lambda side: side.control.make_alias(alias, key)

    def cancel(self, dice: random.Random) -> Any:
        turn, reason, rollback = self._turn(dice), dice.choice(ABORTS), dice.random() < 0.2
        return lambda side: side.control.cancel(turn, reason=reason, rollback=rollback)

    def reset(self, dice: random.Random) -> Any:
        key = dice.choice([*KEYS, *ALIASES])
        return lambda side: side.control.reset(key)

    # ------------------------------------------------------------------------ leases

    def pick(self, dice: random.Random) -> Any:
        owner, agents = dice.choice(OWNERS).owner_id, dice.sample(["main", "dev"], 2)
        agents = agents[: dice.randint(1, 2)]
        overdue = dice.sample(self.turns, dice.randint(0, min(3, len(self.turns))))
        at = dice.choice([None, None, None, dice.random()])
        only = self._turn(dice) if dice.random() < 0.2 else None

        async def run(side: Side) -> Any:
            session_id = None if at is None else side.session(at)
            leased = await side.control.pick(
                owner, agents, LANES, overdue=overdue, session_id=session_id, only=only
            )
            if leased is not None:
                self.tokens.append(leased.token)
            return leased

        return run

    def leased_call(self, dice: random.Random) -> Any:
        """Something that needs a lease: of the turn that has it, or of any."""
        any_turn, any_token = self._turn(dice), self._token(dice)
        honest = dice.random() < 0.8
        at = dice.random()
        name = dice.choice(
            ["make_effective", "count_attempt", "commit", "commit", "commit", "end", "end",
             "put_back", "put_back", "keep", "salvage", "take_over", "take", "take",
             "wait_for", "wait_for", "wait_for", "regain", "regain", "begin_tool"]
        )  # fmt: skip
        some = [TurnId(f"turn-{self.count - n}") for n in dice.sample(range(12), 6)]
        call = ToolCall(f"call-{self.count}", "x", {}, dice.choice(["never", "safe"]))
        outcome = dice.choice(["silent", "failed", "cancelled", "replied"])
        what = dice.choice([Event.REQUEUE, Event.GIVE_BACK, Event.GIVE_BACK, Event.COMMIT])
        reason = dice.choice(["taken_over", "owner_died", "write_lock", "handed_over"])
        later = dice.choice([0, 0, 700, 30_000])
        booked = Commit(
            "said", "e", b"{}\n", dice.randint(1, 99), 1, synced=at < 0.5, usage=b"{}",
        )  # fmt: skip
        owner = dice.choice(OWNERS).owner_id

        async def run(side: Side) -> Any:
            control, turn, token = side.control, any_turn, any_token
            leases = sorted((await control.look(owner)).leases, key=lambda lease: lease.turn_id)
            if leases and honest:
                lease = leases[int(at * len(leases))]
                turn, token = lease.turn_id, lease.token
            if name == "take_over":
                session_id = (await control.turn(turn)).session_id
                return await control.take_over(session_id, token, owner)
            if name == "put_back":
                return await control.put_back(
                    turn, token, what=what, reason=reason, delay_ms=later
                )
            mine = [each.turn_id for each in control.hosted(turn)][: 1 + int(at * 3)] + some
            arguments: dict[str, list[Any]] = {
                "commit": [replace(booked, merged=tuple(mine))], "end": [outcome, "why", "hint"],
                "keep": [b"[1]"], "salvage": [b"[2]"],
                "take": [{each: f"entry of {each}" for each in mine}],
                "wait_for": [some[0]], "regain": [LANES],
                "begin_tool": [call, f"result-{self.count}"],
            }  # fmt: skip
            return await getattr(control, name)(turn, token, *arguments.get(name, []))

        return run

    def end_waiting(self, dice: random.Random) -> Any:
        turn, outcome = self._turn(dice), dice.choice(["failed", "merged", "replied"])
        return lambda side: side.control.end_waiting(turn, outcome, "why")

    def handover(self, dice: random.Random) -> Any:
        at, answers = dice.random(), dice.random() < 0.5
        answer = dice.choice(["let_go", "busy"])

        async def run(side: Side) -> Any:
            if answers and side.requests:
                request = side.requests[int(at * len(side.requests))]
                await side.control.answer_handover(request, answer, "why")
                return await side.control.handover(request)
            session_id = side.session(at)
            return session_id and await side.control.ask_handover(session_id)

        return run

    # ----------------------------------------------------------------------- reading

    async def everything(self, side: Side) -> Any:
        control, ids = side.control, [*self.turns, TurnId("nobody")]
        sessions = side.sessions
        look = await control.look(OWNERS[0].owner_id)
        return side.plain(
            [
                {owner.owner_id: beat for owner, beat in look.owners},
                sorted((each.turn_id, each.abort_age_ms) for each in look.leases),
                sorted(look.orphans),
                sorted(look.foreign_heads),
                await control.turns(),
                await control.turns(state="accepted", after=1),
                await control.turn_states(ids, LANES),
                sorted(turn.turn_id for turn in await control.ended(ids)),
                [await control.is_head(each) for each in ids],
                [await control.has_heads(each) for each in (["main"], ["dev"])],
                [
                    await control.has_heads(["main"], owner_id=owner.owner_id, session_id=each)
                    for owner in OWNERS
                    for each in (None, *sessions)
                ],
                [await control.aborts(owner.owner_id) for owner in OWNERS],
                [control.hosted(each) for each in ids],
                [await control.handovers(owner.owner_id) for owner in OWNERS],
                await control.pulses(sessions),
                await control.counts(),
                [await control.session_facts(each) for each in sessions],
                [control.newest_token(each) for each in sessions],
                [await control.has_heads(["main"], session_id=each) for each in sessions],
                await control.known_agents(),
                await control.events(),
                [
                    sorted(o.owner_id for o in await control.permanent_runners(agent))
                    for agent in ("main", "dev")
                ],
            ]
        )


CALLS = [
    "register", "register_runner", "owner_moves", "make_alias", "cancel", "cancel", "reset",
    "end_waiting", "handover", "step", "step", "step",
    *["admit"] * 10, *["pick"] * 6, *["leased_call"] * 10,
]  # fmt: skip
START = [("register", n) for n in range(6)] + [("register_runner", n) for n in range(6)]


@given(
    st.lists(
        st.tuples(st.sampled_from(CALLS), st.integers(0, 1 << 20)), min_size=60, max_size=120
    )
)
@settings(max_examples=30, deadline=None)
def test_files_and_memory_answer_alike(calls: list[tuple[str, int]]) -> None:
    asyncio.run(agree(calls))


async def agree(calls: list[tuple[str, int]]) -> None:
    script = Script()

    def clock_s() -> float:
        return (script.now_ms + 0.5) / 1000

    with (
        tempfile.TemporaryDirectory() as state,
        mock.patch.object(fs.table, "monotonic", clock_s),
    ):
        world = World(monotonic=clock_s)
        stores: list[Store] = [FilesStore(state, Settings()), MemoryStore(world, Settings())]
        files, memory = [Side(store.control) for store in stores]
        try:
            for name, seed in [*START, *calls]:
                call = script.call(name, seed)
                said = await files.answer(call)
                assert await memory.answer(call) == said, (name, seed)
            assert await script.everything(memory) == await script.everything(files)
        finally:
            for store in stores:
                await store.close()
