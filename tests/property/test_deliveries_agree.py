"""
Whatever becomes of what is owed, files and memory say the same, and both keep to the order.

Method: random commits, attempts, outcomes, deaths and hours that pass, to both stores; every
answer and all rows afterwards have to be the same, and after each step no target has two parts
under way, no part is lost, and no turn is done while it owes anything.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._core.delivery import terminal
from holdfast._core.settings import LANES, Settings
from holdfast.backends.files import fs
from holdfast.backends.files.store import FilesStore
from holdfast.backends.memory import MemoryStore, World
from holdfast.errors import HoldfastError
from holdfast.ports import Store
from holdfast.testing._conform import COMMIT, asked_for
from holdfast.types import Delivery, Owner, OwnerId, TurnId

OWNERS = [Owner(OwnerId(f"owner-{n}"), n, n, "boot", 1, "host") for n in range(2)]
TARGETS = ["a:ann", "a:bob", "b:ann", None]
CALLS = ["reply", "reply", "fail", "take", "take", "take", "land", "land", "pending", "unknown",
         "refuse", "die", "step", "expire", "drop"]  # fmt: skip


class Side:
    """One store, and the calls as it takes them."""

    def __init__(self, store: Store) -> None:
        self.control = store.control
        self.taken: list[Delivery] = []

    async def call(self, name: str, number: int, seed: int) -> Any:
        dice = random.Random(seed)
        try:
            return _plain(await getattr(self, name)(number, dice))
        except HoldfastError as error:
            return type(error).__name__

    async def reply(self, number: int, dice: random.Random) -> Any:
        leased = await self._leased(number, dice)
        text = dice.choice(["one two three", "one", " "])
        commit = replace(COMMIT, reply=text, final_entry=f"e{number}")
        return await self.control.commit(leased.turn.turn_id, leased.token, commit)

    async def fail(self, number: int, dice: random.Random) -> Any:
        leased, hint = await self._leased(number, dice), dice.choice([None, "do this"])
        outcome, reason = dice.choice(
            [("failed", "x"), ("cancelled", "interrupted"), ("cancelled", "cancelled"),
             ("silent", None)]
        )  # fmt: skip
        return await self.control.end(leased.turn.turn_id, leased.token, outcome, reason, hint)

    async def _leased(self, number: int, dice: random.Random) -> Any:
        asked = asked_for(
            turn_id=TurnId(f"turn-{number}"), session_key=f"agent:main:{number}",
            target=dice.choice(TARGETS), part_chars=8, lane=dice.choice(["user", "cron"]),
        )  # fmt: skip
        await self.control.admit(asked, ())
        leased = await self.control.pick(OWNERS[0].owner_id, ["main"], LANES)
        assert leased is not None
        return leased

    async def take(self, number: int, dice: random.Random) -> Any:
        channels = dice.choice([("a",), ("b",), ("a", "b")])
        row = await self.control.next_delivery(dice.choice(OWNERS).owner_id, channels)
        if row is not None:
            self.taken.append(row)
        return row, await self.control.due_ms(channels)

    async def _settle(self, dice: random.Random, state: str, **more: Any) -> Any:
        if not self.taken:
            return None
        row = dice.choice(self.taken[-4:])
        assert row.owner_id is not None
        return await self.control.settle_delivery(
            row.delivery_id, row.owner_id, state, attempt=row.attempts, **more
        )

    async def land(self, number: int, dice: random.Random) -> Any:
        return await self._settle(dice, "delivered", remote_id=f"m{number}")

    async def pending(self, number: int, dice: random.Random) -> Any:
        delay_ms = dice.choice([0, 5_000, 700_000])
        return await self._settle(dice, "pending", reason="busy", delay_ms=delay_ms)

    async def unknown(self, number: int, dice: random.Random) -> Any:
        delay_ms = dice.choice([0, 5_000])
        return await self._settle(dice, "unknown", reason="unanswered", delay_ms=delay_ms)

    async def refuse(self, number: int, dice: random.Random) -> Any:
        return await self._settle(dice, "failed", reason="gone", hint="do that")

    async def die(self, number: int, dice: random.Random) -> Any:
        owner = OWNERS[1]  # The other one leases turns.
        done = await self.control.bury(owner.owner_id, "dead")
        if dice.random() < 0.5:
            await self.control.register(owner)
        return done

    async def step(self, number: int, dice: random.Random) -> Any:
        return None  # The clock is the test's.

    async def expire(self, number: int, dice: random.Random) -> Any:
        return await self.control.expire_deliveries()

    async def drop(self, number: int, dice: random.Random) -> Any:
        owed = [row for row in reversed(await self.rows()) if not terminal(row.state)]
        first = {row.turn_id: row for row in owed}
        if not first:
            return None
        row = first[dice.choice(sorted(first))]
        return await self.control.drop_delivery(row.delivery_id)

    # ---------------------------------------------------------------------- looking

    async def rows(self) -> list[Delivery]:
        return await self.control.deliveries()

    async def check(self) -> None:
        rows = await self.rows()
        busy = Counter(row.target for row in rows if row.state == "attempting")
        assert not [target for target, count in busy.items() if count > 1], "one at a time"
        by_turn: dict[str, list[Delivery]] = {}
        for row in rows:
            by_turn.setdefault(row.turn_id, []).append(row)
            assert terminal(row.state) == (row.ended_at is not None)
            assert (row.owner_id is not None) == (row.state == "attempting")
        for turn_id, parts in by_turn.items():
            assert [part.part for part in parts] == list(range(1, parts[0].parts + 1))
            done = all(terminal(part.state) for part in parts)
            state = (await self.control.turn(TurnId(turn_id))).state
            assert (state == "done") == (done or parts[0].kind == "notice")
            begun = [part.attempts > 0 or part.ended_at is not None for part in parts]
            assert begun == sorted(begun, reverse=True), "parts of a turn in their order"


def _plain(value: Any) -> Any:
    """Without what the stores make up themselves."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, Delivery):
        told = {name: getattr(value, name) for name in Delivery.__dataclass_fields__}
        made = {"session_id", "created_at", "ended_at", "body", "body_hash"}
        clocked = {"not_before_ms", "created_ms", "blocking_ms", "expires_ms"}
        plain = {name: each for name, each in told.items() if name not in made | clocked}
        since = {name: told[name] and told[name] - value.created_ms for name in clocked}
        return {**plain, **since, "ended": value.ended_at is not None}
    return getattr(value, "state", value)


async def agree(calls: list[tuple[str, int]]) -> None:
    now_ms = [1_000_000]

    def clock_s() -> float:
        return (now_ms[0] + 0.5) / 1000

    with (
        tempfile.TemporaryDirectory() as state,
        mock.patch.object(fs.table, "monotonic", clock_s),
    ):
        world = World(monotonic=clock_s)
        stores: list[Store] = [FilesStore(state, Settings()), MemoryStore(world, Settings())]
        sides = [Side(store) for store in stores]
        try:
            for side in sides:
                for owner in OWNERS:
                    await side.control.register(owner)
            for number, (name, seed) in enumerate(calls):
                if name == "step":
                    now_ms[0] += random.Random(seed).choice([1_000, 60_000, 650_000, 8_000_000])
                files, memory = [await side.call(name, number, seed) for side in sides]
                assert files == memory, (number, name)
                for side in sides:
                    await side.check()
            files, memory = [list(map(_plain, await side.rows())) for side in sides]
            assert files == memory
        finally:
            for store in stores:
                await store.close()


@given(
    st.lists(
        st.tuples(st.sampled_from(CALLS), st.integers(0, 1 << 20)), min_size=20, max_size=60
    )
)
@settings(max_examples=40, deadline=None)
def test_files_and_memory_agree_about_what_is_owed(calls: list[tuple[str, int]]) -> None:
    asyncio.run(agree(calls))
