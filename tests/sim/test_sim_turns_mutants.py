"""
Each promise about whole turns can be seen broken: with what keeps it taken out, seeds break.

What is taken out is patched in memory, in the functions that keep it.  The numbers behind each
are a seed that has found it, which is looked at first, and within how many seeds it must be
found if that one does not any more; it was found in about a third of that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("greenlet", reason="the simulator needs greenlet (the extra `sim`)")

from holdfast._core import turns
from holdfast._core.tree import Tree
from holdfast._runtime import booking, merging
from holdfast._runtime.handing import Handing
from holdfast._runtime.reaping import Reaper
from holdfast._runtime.runner import Runner
from holdfast.backends.memory import (
    aborting,
    admission,
    leases,
    live,
    making,
    moving,
    order,
    owing,
    policies,
    rows,
    waits,
)
from holdfast.testing import sim

Patch = pytest.MonkeyPatch
Mutant = Callable[[Patch], None]


def busy_sessions_have_heads(patch: Patch) -> None:
    def heads(world: Any, session_id: Any = None) -> list[Any]:
        each = world.lined.values() if session_id is None else [world.rooms[session_id]]
        found = [head for head in (order.head_of_room(world, room) for room in each) if head]
        return [turn for _, turn in sorted(found, key=lambda head: head[0].rank)]

    patch.setattr(leases, "heads", heads)


def tokens_come_again(patch: Patch) -> None:
    def next_token(world: Any, session_id: Any) -> int:
        room = world.rooms[session_id]
        room.token = room.token % 2 + 1
        return int(room.token)

    patch.setattr(leases, "_next_token", next_token)


def nobody_checks_the_token(patch: Patch) -> None:
    patch.setattr(booking, "check_token", lambda *_, **__: None)


def every_guest_is_merged(patch: Patch) -> None:
    patch.setattr(
        merging, "answered", lambda _, hosted, *__: tuple(turn.turn_id for turn in hosted)
    )


def every_run_is_steered_into(patch: Patch) -> None:
    patch.setattr(policies, "_answers", lambda _, running, __: not running.abort_requested)


def guests_are_forgotten(patch: Patch) -> None:
    patch.setattr(rows, "unhost", lambda _, turn: turn)


def nobody_finds_a_final_entry(patch: Patch) -> None:
    note_turn = Tree._note_turn

    def forget(self: Tree, entry_id: str, entry: Any) -> None:
        note_turn(self, entry_id, entry)
        self.ends.clear()

    patch.setattr(Tree, "_note_turn", forget)


def slots_leak(patch: Patch) -> None:
    put_back = leases.put_back

    def keep_it(world: Any, turn_id: Any, *how: Any, **more: Any) -> Any:
        lane = world.slots.get(turn_id)
        turn = put_back(world, turn_id, *how, **more)
        if lane is not None:
            world.slots[turn_id] = lane
        return turn

    patch.setattr(leases, "put_back", keep_it)


def slots_are_not_counted(patch: Patch) -> None:
    patch.setattr(leases, "is_full", lambda *_: False)


def people_stand_by_priority_alone(patch: Patch) -> None:
    patch.setattr(
        order, "head_of", lambda heads: min(heads, key=lambda head: head.rank, default=None)
    )


def outcomes_are_overwritten(patch: Patch) -> None:
    cancel = aborting.cancel

    def cancel_anyway(world: Any, turn_id: Any, **how: Any) -> Any:
        if world.turns[turn_id].outcome == "replied":
            return rows.change(world, turn_id, outcome="cancelled", reason="cancelled")
        return cancel(world, turn_id, **how)

    patch.setattr(aborting, "cancel", cancel_anyway)


def a_reset_loses_a_turn(patch: Patch) -> None:
    reset = moving.reset

    def lose(world: Any, key: str) -> Any:
        done = reset(world, key)
        for turn_id in done.moved[:1]:
            rows._dequeue(world, world.turns[turn_id])
        return done

    patch.setattr(moving, "reset", lose)


def tools_always_run(patch: Patch) -> None:
    begin_tool = making.begin_tool

    def begin(world: Any, turn_id: Any, token: Any, call: Any, *more: Any, **how: Any) -> Any:
        calls = world.tool_calls.get(turn_id, {})
        if call.call_id in calls and calls[call.call_id].state == "started":
            del calls[call.call_id]
        return begin_tool(world, turn_id, token, call, *more, **how)

    patch.setattr(making, "begin_tool", begin)


def idempotency_keys_are_ignored(patch: Patch) -> None:
    patch.setattr(admission, "_earlier", lambda *_: None)


def the_dead_keep_their_leases(patch: Patch) -> None:
    patch.setattr(Reaper, "end", lambda *_: None)


def the_newest_part_goes_first(patch: Patch) -> None:
    look = owing.look
    patch.setattr(owing, "look", lambda owed, now_ms: look([*owed][::-1], now_ms))


def fenced_output_is_shown(patch: Patch) -> None:
    read = live.LiveTail.read

    def read_all(self: live.LiveTail, newest: int) -> list[Any]:
        logs = self._world.logs.get(self._turn_id, {})
        old = bytes(logs[min(logs)]).splitlines()[:1] if len(logs) > 1 else []
        return [
            *read(self, newest),
            *filter(None, (live._event(json.loads(line)) for line in old)),
        ]

    patch.setattr(live.LiveTail, "read", read_all)


def heartbeats_yield_for_ever(patch: Patch) -> None:
    patch.setattr(policies, "PREEMPTED_MOST", 99)


def any_token_will_do(patch: Patch) -> None:
    for module in (leases, making, waits):
        patch.setattr(
            module, "guard", lambda world, turn_id, _: rows.fetch_turn(world, turn_id)
        )


def letting_go_costs_an_attempt(patch: Patch) -> None:
    patch.setattr(turns, "GIVES_BACK", turns.GIVES_BACK - {"handed_over"})


def nobody_answers_who_asks(patch: Patch) -> None:
    async def look(_: Handing) -> None: ...

    patch.setattr(Handing, "look", look)


def who_leaves_keeps_its_leases(patch: Patch) -> None:
    async def stop(self: Runner, **_: Any) -> tuple[int, int]:
        self.stopping = True
        return 0, 0

    patch.setattr(Runner, "stop", stop)


def who_drains_goes_on(patch: Patch) -> None:
    pick = leases.pick

    def anybody_picks(world: Any, owner_id: Any, *what: Any, **more: Any) -> Any:
        row = world.owners[owner_id]
        draining, row.draining = row.draining, False
        try:
            return pick(world, owner_id, *what, **more)
        finally:
            row.draining = draining

    patch.setattr(leases, "pick", anybody_picks)
    patch.setattr(Runner, "stopping", property(lambda _: False, lambda *_: None), raising=False)


@pytest.mark.parametrize(
    ("mutant", "known", "seeds", "says"),
    [
        (busy_sessions_have_heads, 0, 20, "and the lease is"),
        (tokens_come_again, 0, 20, "token"),
        (nobody_checks_the_token, 144, 200, "has loaded"),
        (every_guest_is_merged, 21, 150, "merged into|heard nothing"),
        (every_run_is_steered_into, 45, 150, "is to be told"),
        (guests_are_forgotten, 20, 40, "after the storm|has a host|is accepted"),
        (nobody_finds_a_final_entry, 44, 100, "was answered 2 times|answered after its end"),
        (slots_leak, 0, 40, "does not run|turns run in the lane"),
        (slots_are_not_counted, 15, 40, "turns run in the lane"),
        (people_stand_by_priority_alone, 0, 60, "overtakes"),
        (outcomes_are_overwritten, 9, 90, "ended twice"),
        (a_reset_loses_a_turn, 22, 60, "overtakes|after the storm"),
        (tools_always_run, 67, 350, "and never should"),
        (idempotency_keys_are_ignored, 44, 350, "was accepted twice"),
        (the_dead_keep_their_leases, 0, 20, "after the storm"),
        (the_newest_part_goes_first, 0, 20, "arrived before|after the storm|two parts go"),
        (fenced_output_is_shown, 0, 40, "shows token"),
        (heartbeats_yield_for_ever, 5, 500, "pre-empted three times"),
        (any_token_will_do, 17, 150, "under token"),
        (letting_go_costs_an_attempt, 51, 300, "handed_over: 0 given back"),
        (nobody_answers_who_asks, 9, 350, "nobody answered"),
        (who_leaves_keeps_its_leases, 40, 120, "has left, and holds"),
        (who_drains_goes_on, 40, 120, "by one that drains"),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_what_keeps_a_promise_is_missed_when_it_is_gone(
    monkeypatch: Patch, mutant: Mutant, known: int, seeds: int, says: str
) -> None:
    mutant(monkeypatch)
    for seed in (known, *range(seeds)):
        broken = sim.run(seed, "whole").broken
        if broken is not None and any(each in broken for each in says.split("|")):
            return
    pytest.fail(f"nothing was noticed in {seeds} seeds")
