"""The deliverer, with channels that hang, fail, doubt and lie; the store is memory, or files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import _points
from holdfast._core import delivery
from holdfast._core.delivery import MAY_HAVE_ARRIVED, SENT_AGAIN
from holdfast._runtime.runtime import Holdfast
from holdfast.backends.files.control import tending
from holdfast.errors import (
    BadRequestError,
    DeliveryError,
    ProviderError,
    SessionBusyError,
    UnknownChannelError,
)
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Fail
from holdfast.types import Delivery, Parcel

WITHIN_S = 30


class FakeChannel:
    """Does with each part what *does* says, in that order; then it takes everything."""

    def __init__(self, *does: Any, name: str = "fake", **facts: Any) -> None:
        self.name, self.part_chars_max, self.timeout_s = name, 1000, 20.0
        self.ambiguous: Any = "resend"
        self.reconciles, self.says = False, "unknown"
        vars(self).update(facts)
        self._does = list(does)
        self.got: list[Parcel] = []
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0

    async def deliver(self, parcel: Parcel) -> str | None:
        self.got.append(parcel)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            does = self._does.pop(0) if self._does else None
            if isinstance(does, Exception):
                raise does
            return await does(parcel) if does is not None else f"m{len(self.got)}"
        finally:
            self.at_once -= 1

    async def reconcile(self, parcel: Parcel) -> Any:
        self.asked.append(parcel.key)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    async def aclose(self) -> None: ...


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for minutes here."""
    monkeypatch.setattr(delivery, "BACKOFF_MS", (1, 1, 1, 1))


@pytest.fixture(params=["memory", "files"])
def where(request: Any, tmp_path: Path) -> str:
    return f"memory:{tmp_path.name}" if request.param == "memory" else str(tmp_path / "s")


@asynccontextmanager
async def opened(where: str, *channels: Any, **more: Any) -> AsyncIterator[Holdfast]:
    async with holdfast.open(where, agent=ScriptedModel(), channels=channels, **more) as hf:
        yield hf


async def owed(hf: Holdfast, turn_id: str) -> list[Delivery]:
    """What a turn owed, once all of it is terminal."""
    async with asyncio.timeout(WITHIN_S):
        async for _ in hf.follow(turn_id):
            pass
    rows = await hf.store.control.deliveries(turn_id=turn_id)  # type: ignore[arg-type]
    assert (await hf.store.control.turn(turn_id)).state == "done"  # type: ignore[arg-type]
    return rows


async def sent(hf: Holdfast, text: str = "hello", target: str = "fake:ann", **more: Any) -> str:
    receipt = await hf.submit("main", text, target=target, **more)
    assert (await receipt.outcome(WITHIN_S)).kind == "replied"
    return receipt.turn_id


UNANSWERED = DeliveryError(detail="no answer", reason="unanswered", landed=None)
BUSY = DeliveryError(detail="busy", reason="busy")
GONE = DeliveryError(detail="gone", reason="gone", permanent=True)


async def test_a_reply_is_delivered_and_told(where: str) -> None:
    channel = FakeChannel()
    async with opened(where, channel) as hf:
        turn_id = await sent(hf)
        [row] = await owed(hf, turn_id)
        assert (row.state, row.remote_id, row.attempts) == ("delivered", "m1", 1)
        kinds = [event.kind async for event in hf.follow(turn_id)]
    assert kinds[-3:] == ["committed", "outcome", "delivered"]
    [parcel] = channel.got
    assert (parcel.address, parcel.text) == ("ann", "reply to: hello")
    assert parcel.session_key == "agent:main:main"


async def test_what_fails_is_sent_again_with_the_same_bytes(where: str) -> None:
    channel = FakeChannel(BUSY, BUSY, ValueError("a bug of the channel"))
    async with opened(where, channel) as hf:
        [row] = await owed(hf, await sent(hf))
    assert (row.state, row.attempts) == ("delivered", 4)
    assert len({(each.key, each.body) for each in channel.got}) == 1
    assert [each.attempt for each in channel.got] == [1, 2, 3, 4]


async def test_after_five_attempts_nobody_tries_again(where: str) -> None:
    async with opened(where, FakeChannel(*[BUSY] * 9)) as hf:
        turn_id = await sent(hf)
        [row] = await owed(hf, turn_id)
        last = [event async for event in hf.follow(turn_id)][-1]
    assert (row.state, row.attempts, row.reason) == ("failed", 5, "attempts_used_up")
    assert (last.kind, last.data["state"]) == ("delivery", "failed")


async def test_what_can_never_succeed_is_tried_once(where: str) -> None:
    async with opened(where, FakeChannel(GONE)) as hf:
        [row] = await owed(hf, await sent(hf))
    assert (row.state, row.attempts, row.reason) == ("failed", 1, "gone")
    assert row.hint == delivery.PERMANENT["gone"]


@pytest.mark.parametrize(
    ("facts", "state", "sends", "hint"),
    [
        ({"ambiguous": "resend"}, "delivered", 2, SENT_AGAIN),
        ({"ambiguous": "give_up"}, "failed", 1, MAY_HAVE_ARRIVED),
        ({"reconciles": True, "says": "delivered"}, "delivered", 1, None),
        ({"reconciles": True, "says": "delivered", "ambiguous": "give_up"}, "delivered", 1, None),
        ({"reconciles": True, "says": "not_delivered", "ambiguous": "give_up"}, "delivered", 2, None),
        ({"reconciles": True, "says": "unknown", "ambiguous": "give_up"}, "failed", 1, MAY_HAVE_ARRIVED),
        ({"reconciles": True, "says": "unknown", "ambiguous": "resend"}, "delivered", 2, SENT_AGAIN),
        ({"reconciles": True, "says": BUSY, "ambiguous": "give_up"}, "failed", 1, MAY_HAVE_ARRIVED),
    ],
)  # fmt: skip
async def test_what_may_have_arrived_is_asked_about_decided_and_said(
    where: str, facts: Any, state: str, sends: int, hint: str | None
) -> None:
    channel = FakeChannel(UNANSWERED, **facts)
    async with opened(where, channel) as hf:
        [row] = await owed(hf, await sent(hf))
    assert (row.state, len(channel.got), row.hint) == (state, sends, hint)
    assert len({each.body for each in channel.got}) == 1


async def test_a_target_is_served_in_order_while_others_go_ahead(where: str) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()

    async def hang(parcel: Parcel) -> None:
        reached.set()
        await gate.wait()

    channel = FakeChannel(hang)
    async with opened(where, channel) as hf:
        ann = [await sent(hf, f"{n}", "fake:ann") for n in range(2)]
        await asyncio.wait_for(reached.wait(), WITHIN_S)
        bob = await sent(hf, "for bob", "fake:bob")
        [row] = await owed(hf, bob)
        assert row.state == "delivered"
        assert [each.address for each in channel.got] == ["ann", "bob"]
        gate.set()
        for turn_id in ann:
            await owed(hf, turn_id)
    assert [each.text for each in channel.got if each.address == "ann"] == [
        "reply to: 0", "reply to: 1",
    ]  # fmt: skip
    assert channel.most_at_once == 2


async def test_a_channel_that_ignores_its_timeout_and_its_cancellation_costs_one_target(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast._runtime import delivering

    monkeypatch.setattr(delivering, "BEYOND_S", 0.01)
    stubborn = asyncio.Event()

    async def never(parcel: Parcel) -> None:
        while not stubborn.is_set():
            try:
                await stubborn.wait()
            except asyncio.CancelledError:
                continue

    channel = FakeChannel(never, timeout_s=0.1)
    async with opened(where, channel) as hf:
        [row] = await owed(hf, await sent(hf))
        assert (row.state, row.attempts, row.hint) == ("delivered", 2, SENT_AGAIN)
        stubborn.set()


async def test_closing_waits_for_what_is_being_sent_and_for_what_is_due(where: str) -> None:
    reached = asyncio.Event()

    async def slow(parcel: Parcel) -> None:
        reached.set()
        await asyncio.sleep(0.2)

    channel = FakeChannel(slow)
    async with opened(where, channel) as other:
        async with opened(where, FakeChannel(name="else")):
            pass
        turn_id = await sent(other, "one " * 600)  # In three parts.
        await asyncio.wait_for(reached.wait(), WITHIN_S)
        await other.drain(finish_s=20)
        rows = await other.store.control.deliveries(turn_id=turn_id)  # type: ignore[arg-type]
        assert {row.state for row in rows} == {"delivered"}
        assert len(rows) == len(channel.got) == 3


async def test_what_is_cut_short_is_left_as_unknown_and_sent_by_the_next(where: str) -> None:
    reached = asyncio.Event()

    async def hang(parcel: Parcel) -> None:
        reached.set()
        await asyncio.Event().wait()

    first, second = FakeChannel(hang), FakeChannel()
    async with holdfast.open(where, agent=ScriptedModel(), channels=()) as admits:
        async with opened(where, first) as hf:
            turn_id = await sent(hf)
            await asyncio.wait_for(reached.wait(), WITHIN_S)
            await hf.drain(finish_s=0)
            [row] = await hf.store.control.deliveries(turn_id=turn_id)  # type: ignore[arg-type]
            assert (row.state, row.reason) == ("unknown", "abandoned")
        async with opened(where, second):
            [row] = await owed(admits, turn_id)
    assert (row.state, row.hint) == ("delivered", SENT_AGAIN)
    assert [each.body for each in first.got] == [each.body for each in second.got]


async def test_who_was_buried_in_the_middle_sends_nothing(where: str) -> None:
    """Another process takes over between the row and the first byte."""
    late, other = FakeChannel(), FakeChannel()
    async with holdfast.open(where, agent=ScriptedModel(), channels=()) as admits:
        async with opened(where, late) as hf:
            me = hf.store.owner.owner_id

            def bury() -> None:
                _points._hooks.pop("delivery.taken", None)
                _bury_now(hf, me)

            _points.install("delivery.taken", bury)
            try:
                turn_id = await sent(hf)
                async with opened(where, other):
                    [row] = await owed(admits, turn_id)
            finally:
                _points._hooks.pop("delivery.taken", None)
    assert row.state == "delivered"
    assert row.attempts == 2
    assert len(late.got) + len(other.got) == 1, "the attempt that was lost sent nothing"


def _bury_now(hf: Holdfast, owner_id: Any) -> None:
    """As a reaper does it, from another thread's point of view: before anything else."""
    control: Any = hf.store.control
    if hasattr(control, "_world"):
        from holdfast.backends.memory import owners as memory_owners

        with control._world.mutex:
            memory_owners.bury(control._world, owner_id, "dead")
    else:
        from holdfast.backends.files.control import owners as file_owners

        control.tend(lambda db: file_owners.bury(db, owner_id, "dead"))


async def test_whoever_is_refused_is_told(where: str) -> None:
    channel = FakeChannel()
    model = ScriptedModel([Fail(ProviderError(reason="unauthorized", detail="no key"))])
    async with holdfast.open(where, agent=model, channels=[channel]) as hf:
        receipt = await hf.submit("main", "hello", target="fake:ann")
        assert (await receipt.outcome(WITHIN_S)).kind == "failed"
        [row] = await owed(hf, receipt.turn_id)
    assert (row.kind, row.state) == ("notice", "delivered")
    assert "could not be answered" in channel.got[0].text


@pytest.mark.parametrize("target", ["nowhere", ":ann", "fake:" + "x" * 300, "fake:\n"])
async def test_a_target_that_is_none_is_refused(target: str) -> None:
    async with opened("memory:", FakeChannel()) as hf:
        with pytest.raises(BadRequestError):
            await hf.submit("main", "hello", target=target)


async def test_a_channel_that_nobody_knows_is_refused_by_name() -> None:
    settings = {"channels.crm.url": "http://127.0.0.1:9/", "channels.inbox.agent": "main"}
    async with opened("memory:", FakeChannel(), settings=settings) as hf:
        for name in ("other", "inbox"):
            with pytest.raises(UnknownChannelError) as caught:
                await hf.submit("main", "hello", target=f"{name}:ann")
            assert caught.value.known == ["crm", "fake"]
        # The settings alone say enough for who only admits.
        assert (await hf.submit("main", "hello", target="crm:ann")).turn_id


async def test_what_was_delivered_is_purged_with_its_session(tmp_path: Path) -> None:
    async with opened(str(tmp_path / "s"), FakeChannel()) as hf:
        [row] = await owed(hf, await sent(hf, "a-secret-word"))
        assert b"a-secret-word" in row.body
        control: Any = hf.store.control
        control.tend(
            lambda db: tending.mark_deleted(db, row.session_id, "gone.deleted-1", purge=True)
        )
        assert (hf.store.control.delivery_now(row.delivery_id)).body == b""


@pytest.mark.parametrize("attempted", [False, True])
async def test_a_notice_that_is_still_owed_is_not_sent_once_its_session_is_purged(
    tmp_path: Path, *, attempted: bool
) -> None:
    model = ScriptedModel([Fail(ProviderError(reason="unauthorized", detail="no key"))])
    channels = {"channels.fake.url": "http://127.0.0.1:9/"}
    where = str(tmp_path / "s")
    async with holdfast.open(where, agent=model, channels=[], settings=channels) as hf:
        receipt = await hf.submit("main", "hello", target="fake:ann")
        assert (await receipt.outcome(WITHIN_S)).kind == "failed"
        control: Any = hf.store.control
        [row] = await control.deliveries()

        def purge() -> Any:
            return control.tend(
                lambda db: tending.mark_deleted(db, row.session_id, "x.deleted-1", purge=True)
            )

        if attempted:
            me = hf.store.owner.owner_id
            row = await control.next_delivery(me, ["fake"])
            with pytest.raises(SessionBusyError):
                purge()
            await control.settle_delivery(row.delivery_id, me, "unknown", reason="unanswered")
        purge()
        left = control.delivery_now(row.delivery_id)
        assert (left.state, left.reason, left.body) == ("failed", "dropped", b"")
        assert (left.hint == MAY_HAVE_ARRIVED) is attempted
