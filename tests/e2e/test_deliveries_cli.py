"""`holdfast deliveries` as a user runs it: what is owed, and letting go of it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.backends.files.control import deliveries, telling
from holdfast.cli import main
from holdfast.testing import ScriptedModel

WITHIN_S = 30
CHANNELS = {
    f"channels.{name}.{key}": value
    for name in ("crm", "ops")
    for key, value in {"url": "http://127.0.0.1:9/", "part_chars": 200}.items()
}


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOLDFAST_STORE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def owe(where: Path, *messages: tuple[str, str], text: str = "hello") -> list[str]:
    """Replies to messages, key and target, that nobody delivers.  Their turns."""

    async def sent() -> list[str]:
        found = []
        model = ScriptedModel()
        async with holdfast.open(where, agent=model, channels=[], settings=CHANNELS) as hf:
            for key, target in messages:
                receipt = await hf.submit(key, text, target=target)
                assert (await receipt.outcome(WITHIN_S)).kind == "replied"
                found.append(str(receipt.turn_id))
        return found

    return asyncio.run(sent())


def asked(*words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    """Run a command with --json; its answer."""
    capsys.readouterr()
    found = main([*words, "--json"])
    out, err = capsys.readouterr()
    assert found == code, out + err
    return json.loads(out)


def test_what_will_never_arrive_is_dropped_and_its_session_can_be_deleted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "agent:main:other"
    one, two, three = owe(
        tmp_path / "state", ("main", "crm:ann"), ("main", "ops:room"), (other, "crm:bob")
    )
    told = asked("deliveries", "list", capsys=capsys)["deliveries"]
    assert [(each["delivery_id"], each["session"], each["target"]) for each in told] == [
        (f"{one}.1", "agent:main:main", "crm:ann"),
        (f"{two}.1", "agent:main:main", "ops:room"),
        (f"{three}.1", other, "crm:bob"),
    ]
    refused = asked("sessions", "delete", "main", "--yes", capsys=capsys, code=4)["error"]
    assert "holdfast deliveries drop --session agent:main:main" in refused["hint"]

    assert asked("deliveries", "drop", f"{one}.1", capsys=capsys)["dropped"] == 1
    assert asked("turns", "show", one, capsys=capsys)["state"] == "done"
    [row] = asked("deliveries", "list", "--state", "failed", capsys=capsys)["deliveries"]
    assert (row["delivery_id"], row["reason"]) == (f"{one}.1", "dropped")

    bulk = ("deliveries", "drop", "--session", "main")
    error = asked(*bulk, capsys=capsys, code=2)["error"]
    assert "1 parts" in error["message"], "a pipe cannot be asked"
    [gone] = asked(*bulk, "--yes", capsys=capsys)["deliveries"]
    assert gone["delivery_id"] == f"{two}.1"
    assert asked(*bulk, "--yes", capsys=capsys) == {"deliveries": [], "dropped": 0}
    assert asked("sessions", "delete", "main", "--yes", capsys=capsys)

    capsys.readouterr()
    assert main(["deliveries", "list", "--channel", "crm"]) == 0
    assert f"{three}.1" in capsys.readouterr().out
    assert (
        asked("deliveries", "drop", "--channel", "ops", "--yes", capsys=capsys)["dropped"] == 0
    )
    assert main(["deliveries", "drop", "--channel", "crm", "--yes"]) == 0
    assert capsys.readouterr().out == "1 dropped\n"


def test_a_reply_of_many_parts_is_shown_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "PAGE", 2)
    monkeypatch.setattr(telling, "OWED_MAX", 2)
    [turn] = owe(tmp_path / "state", ("main", "crm:ann"), text="word " * 200)
    parts = [f"{turn}.{number}" for number in range(1, 7)]
    shown = asked("turns", "show", turn, capsys=capsys)["deliveries"]
    assert [each["delivery_id"] for each in shown] == parts
    told = asked("deliveries", "list", capsys=capsys)["deliveries"]
    assert [each["delivery_id"] for each in told] == parts
    capsys.readouterr()
    assert main(["why", "main"]) == 0
    assert "and 4 more" in capsys.readouterr().out


def test_what_has_ended_is_left_alone_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [turn] = owe(tmp_path / "state", ("main", "crm:ann"))
    asked("deliveries", "drop", f"{turn}.1", capsys=capsys)

    async def delivered() -> str:
        async with holdfast.open(
            tmp_path / "state", agent=ScriptedModel(), channels=[], settings=CHANNELS
        ) as hf:
            receipt = await hf.submit("main", "again", target="crm:ann")
            await receipt.outcome(WITHIN_S)
            control, me = hf.store.control, hf.store.owner.owner_id
            row = await control.next_delivery(me, ["crm"])
            assert row is not None
            await control.settle_delivery(row.delivery_id, me, "delivered")
            return row.delivery_id

    arrived = asyncio.run(delivered())
    capsys.readouterr()
    assert main(["deliveries", "drop", arrived]) == 1
    out, err = capsys.readouterr()
    assert out == "0 dropped\n"
    assert f"{arrived} was left alone: delivered" in err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["drop"], "bad_request"),
        (["drop", "x.1", "--channel", "crm"], "bad_request"),
        (["drop", "x.1"], "not_found"),
        (["drop", "--session", "agent:main:nobody"], "not_found"),
        (["list", "--state", "late"], "bad_request"),
    ],
)
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: str
) -> None:
    owe(tmp_path / "state", ("main", "crm:ann"))
    error = asked("deliveries", *words, capsys=capsys, code=2)["error"]
    assert error["code"] == code
    assert len(asked("deliveries", "list", capsys=capsys)["deliveries"]) == 1
