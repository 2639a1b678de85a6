"""Keys under races: aliases, and a key that is reset while turns wait, across processes."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from tests.support.door import door
from tests.support.holding import children

import holdfast
from holdfast._core.turns import Event
from holdfast.errors import NotFoundError
from holdfast.testing import ScriptedModel

if TYPE_CHECKING:
    from pathlib import Path

KEY, ALIAS = "agent:main:slack:direct:ann", "agent:main:ann"
WITHIN_S = 60


@pytest.mark.parametrize("alias_first", [True, False])
async def test_a_key_and_its_alias_are_one_session_whoever_comes_first(
    alias_first: bool, tmp_path: Path
) -> None:
    async with holdfast.open(tmp_path) as hf:
        if alias_first:
            await hf.add_alias(ALIAS, KEY)
            first = await hf.submit(ALIAS, "one")
        else:
            first = await hf.submit(KEY, "one")
            await hf.add_alias(ALIAS, KEY)
        for key in (KEY, ALIAS):
            assert (await hf.submit(key, "two")).session_id == first.session_id


def test_processes_that_use_a_key_and_its_alias_at_once_are_in_one_session(
    tmp_path: Path,
) -> None:
    """The alias is made by a third, at the same moment: whoever is too late is told."""
    with children(tmp_path, 3) as (one, two, maker):
        for n in range(20):
            key, alias = f"{KEY}:{n}", f"{ALIAS}:{n}"
            one.tell(do="submit", key=key, name="one", count=2)
            maker.tell(do="alias", alias=alias, key=key)
            two.tell(do="submit", key=alias, name="two", count=2)
            told = [one.hear(), maker.hear(), two.hear()]
            ours = {session for _, session in told[0]["turns"]}
            theirs = {session for _, session in told[2]["turns"]}
            assert len(ours) == 1
            if "error" in told[1]:  # The alias was a conversation of its own by then.
                assert told[1]["error"] == "bad_key"
                assert len(theirs) == 1
                assert ours != theirs
            else:
                assert theirs == ours
            again = one.ask(do="submit", key=alias, name="two", count=2)
            assert again == told[2], "and stay there, under either name"


def test_processes_that_make_one_session_by_its_key_and_alias_make_one(tmp_path: Path) -> None:
    with children(tmp_path, 2) as both:
        for n in range(20):
            key, alias = f"{KEY}:{n}", f"{ALIAS}:{n}"
            both[0].ask(do="alias", alias=alias, key=key)
            for child, name in zip(both, (key, alias), strict=True):
                child.tell(do="submit", key=name, name=name, count=1)
            sessions = {each.hear()["turns"][0][1] for each in both}
            assert len(sessions) == 1


# ------------------------------------------------------------------------------- reset


def test_turns_that_two_processes_have_waiting_go_along_in_order(tmp_path: Path) -> None:
    """While both go on sending: each turn is in one of the two sessions, and none is lost."""
    with children(tmp_path, 3) as (one, two, holder):
        held = holder.ask(do="hold", key=KEY)["turn"]
        before = [one.ask(do="submit", key=KEY, name="a", count=5),
                  two.ask(do="submit", key=KEY, name="b", count=5)]  # fmt: skip
        one.tell(do="submit", key=KEY, name="c", count=40)
        two.tell(do="submit", key=KEY, name="d", count=40)
        done = reset(tmp_path)
        during = [one.hear()["turns"], two.hear()["turns"]]
        waiting = [turn for each in before for turn, _ in each["turns"]]
        assert done["moved"][:10] == waiting
        assert done["stayed"] == [held]
        assert done["old"] != done["new"]
        for each in during:  # Those of one sender: first into the old session, then the new.
            where = [session for _, session in each]
            assert set(where) <= {done["old"], done["new"]}
            assert where == sorted(where)
            gone = [turn for turn, session in each if session == done["old"]]
            assert [turn for turn in done["moved"] if turn in gone] == gone
        listed = turns_of(tmp_path, KEY)
        assert {turn["turn_id"] for turn in listed} == {
            *waiting, *(turn for each in during for turn, _ in each)
        }  # fmt: skip
        again = two.ask(do="submit", key=KEY, name="a", count=5)["turns"]
        assert [turn for turn, _ in again] == [turn for turn, _ in before[0]["turns"]]


async def test_they_are_answered_in_the_order_of_their_admission(tmp_path: Path) -> None:
    model = ScriptedModel()
    async with holdfast.open(tmp_path) as sender:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(sender.turn(KEY, "runs"))
            receipts = [await sender.submit(KEY, f"m{n}") for n in range(6)]
            done = await sender.reset(KEY)
            assert done.moved == tuple(receipt.turn_id for receipt in receipts)
            assert (await sender.session(KEY)).session_id == done.new.session_id
            late = await sender.submit(KEY, "m6")
            async with holdfast.open(tmp_path, agent=model):
                for receipt in [*receipts, late]:
                    assert (await receipt.outcome(WITHIN_S)).kind == "replied"
        assert [prompt.text for prompt in model.prompts] == [f"m{n}" for n in range(7)]
        asked = [len(prompt.history) for prompt in model.prompts]
        assert all(later > earlier for earlier, later in pairwise(asked))
        assert asked[0] == 0, "a new conversation"


async def test_a_retry_after_a_reset_finds_the_first_receipt(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path, agent=ScriptedModel()) as hf:
        first = await hf.submit(KEY, "pay", idempotency_key="k")
        assert (await first.outcome(WITHIN_S)).kind == "replied"
        await hf.reset(KEY)
        again = await hf.submit(KEY, "pay", idempotency_key="k")
        assert (again.turn_id, again.fresh) == (first.turn_id, False)
        assert again.session_id == first.session_id


async def test_a_turn_that_had_started_stays_even_if_it_waits_again(tmp_path: Path) -> None:
    """Its question stands in the old transcript."""
    async with holdfast.open(tmp_path) as hf:
        control, me = hf.store.control, hf.store.owner.owner_id
        began = await hf.submit(KEY, "began")
        await control.register_runner(me, ["main"], permanent=False)
        leased = await control.pick(me, ["main"], hf.settings.lanes)
        assert leased is not None
        await control.put_back(
            began.turn_id, leased.token, what=Event.GIVE_BACK, reason="drained", delay_ms=60_000
        )
        waits = await hf.submit(KEY, "waits")
        done = await hf.reset(KEY)
        assert (done.moved, done.stayed) == ((waits.turn_id,), (began.turn_id,))
        assert (await control.turn(began.turn_id)).session_id == done.old.session_id


async def test_a_key_is_reset_by_its_alias_too(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as hf:
        await hf.add_alias(ALIAS, KEY)
        first = await hf.submit(KEY, "one")
        done = await hf.reset(ALIAS)
        assert done.moved == (first.turn_id,)
        for key in (KEY, ALIAS):
            assert (await hf.session(key)).session_id == done.new.session_id


async def test_a_key_that_nobody_has_used_is_not_reset(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path) as hf:
        with pytest.raises(NotFoundError):
            await hf.reset(KEY)


async def test_it_is_asked_for_over_http(tmp_path: Path) -> None:
    async with door(tmp_path) as opened, opened.http() as client:
        path = f"/v1/sessions/{KEY}"
        assert (await client.post(f"{path}/reset")).status_code == 404
        sent = await client.post(f"{path}/messages?wait=30", json={"text": "one"})
        told = (await client.post(f"{path}/reset")).json()
        assert told["old"] == sent.json()["session_id"]
        assert (told["moved"], told["stayed"]) == ([], [])
        assert (await client.get(path)).json()["session_id"] == told["new"]


def test_show_names_the_older_sessions_of_a_key(tmp_path: Path) -> None:
    run("send", KEY, "one", store=tmp_path)
    first = json.loads(run("sessions", "show", KEY, "--json", store=tmp_path))
    assert first["older"] == []
    told = reset(tmp_path)
    run("send", KEY, "two", store=tmp_path)
    shown = json.loads(run("sessions", "show", KEY, "--json", store=tmp_path))
    assert shown["session_id"] == told["new"]
    assert shown["older"] == [first["transcript"]]
    assert len(shown["last"]) == 2, "nothing of the old conversation"


def reset(store: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(
        run("sessions", "reset", KEY, "--json", store=store)
    )
    return found


def turns_of(store: Path, key: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(
        run("turns", "list", "--session", key, "--json", store=store)
    )["turns"]
    return found


def run(*words: str, store: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *words, "--store", str(store)],
        capture_output=True, text=True, timeout=WITHIN_S, check=True,
    )  # fmt: skip
    return done.stdout
