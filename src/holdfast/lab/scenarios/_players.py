"""
Processes of the incidents.  Started by `_cast.Hands`, never by hand.

Whoever is to die at a point dies there by SIGKILL: no cleanup of its own has run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from holdfast import _points
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import LockWaitError
from holdfast.lab.scenarios._cast import Echo, open_

if TYPE_CHECKING:
    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.child import Child
    from holdfast.ports.channels import Ambiguous, Reconciled
    from holdfast.types import Parcel

__all__ = ["Mailbox", "appends", "asks_for_locks", "holds", "runs", "sends"]


def dies_at(point: str, hit: int = 1) -> None:
    """This process ends when *point* is reached for the *hit*-th time from now on."""
    hits = 0

    def reached() -> None:
        nonlocal hits
        hits += 1
        if hits == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    _points.install(point, reached)


class Mailbox:
    """
    A channel: a file, with a line for each part that arrived.

    Each line says, too, whether the part's text stood in a transcript of *state* when it came.
    """

    part_chars_max, timeout_s, reconciles = 4_000, 10.0, False
    ambiguous: Ambiguous = "resend"

    def __init__(self, state: str, path: str) -> None:
        self.name = "mailbox"
        self._state, self._path = state, path

    async def deliver(self, parcel: Parcel) -> str | None:
        self.put(parcel.key, parcel.text)
        return None

    def put(self, key: str, text: str) -> None:
        kept = any(text in each for each in self._transcripts())
        line = json.dumps({"key": key, "text": text, "kept": kept})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def arrived(self) -> list[dict[str, Any]]:
        """What has, in order."""
        if not os.path.exists(self._path):
            return []
        with open(self._path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    async def reconcile(self, parcel: Parcel) -> Reconciled:
        del parcel
        return "unknown"

    async def aclose(self) -> None:
        pass

    def _transcripts(self) -> list[str]:
        found = list[str]()
        for where, _, names in os.walk(self._state):
            for name in names:
                if name.endswith(".jsonl"):
                    with open(os.path.join(where, name), encoding="utf-8") as file:
                        found.append(file.read())
        return found


async def runs(
    child: Child,
    *,
    state: str,
    says: list[dict[str, Any]],
    slow: str | None = None,
    at: tuple[str, int] | None = None,
    mailbox: str | None = None,
    bound: str | None = None,
    settings: dict[str, Any],
) -> None:
    """
    A gateway with an agent.  It says `accepted` for each message it took in, and `streaming`
    when its agent has begun something slow.

    Args:
        says: messages: what `submit` takes; one may come `behind` so many slow ones' beginning.
        at: where it dies, and at which hit; from before its first message.
        bound: a key on which its program waits for a turn of its own.
    """
    agent = Echo(slow=slow)
    channels = () if mailbox is None else (Mailbox(state, mailbox),)
    async with open_(state, agent=agent, channels=channels, settings=settings) as hf:
        await child.ready()
        if at is not None:
            dies_at(*at)
        for each in says:
            await agent.has_begun(each.pop("behind", 0))
            await _say(hf, child, each)
        async with AsyncExitStack() as stack:
            if bound is not None:
                own = hf.turn(bound, "a program's own loop")
                waits = asyncio.create_task(stack.enter_async_context(own))
                await _stored(hf, "a program's own loop", child)
                del waits
            child.say("all_accepted")
            if slow is not None:
                await agent.began.wait()
                child.say("streaming")
            await child.order("end")


async def _stored(hf: Holdfast, text: str, child: Child) -> None:
    """Until the store has a turn with *text*; says its id."""
    while True:
        for turn in await hf.store.control.turns():
            if turn.text == text:
                child.say("accepted", turn=turn.turn_id, text=text)
                return
        await hf.change()


async def sends(
    child: Child,
    *,
    state: str,
    says: list[dict[str, Any]],
    at: tuple[str, int] | None = None,
    settings: dict[str, Any],
) -> None:
    """A program that hands messages in and runs nothing; it does not survive a `dying` one."""
    async with open_(state, settings=settings) as hf:
        await child.ready()
        for each in says:
            dying = each.pop("when", None) == "dying"
            if dying and at is not None:
                dies_at(*at)
            await _say(hf, child, each)
            if dying:  # A store without that point.
                os.kill(os.getpid(), signal.SIGKILL)
        child.say("all_accepted")
        await child.order("end")


async def _say(hf: Holdfast, child: Child, what: dict[str, Any]) -> None:
    more = dict(what)
    key, text = more.pop("key"), more.pop("text")
    receipt = await hf.submit(key, text, **more)
    child.say(
        "accepted", turn=receipt.turn_id, text=text, session=receipt.session_id,
        admission=receipt.admission,
    )  # fmt: skip


async def holds(child: Child, *, path: str) -> None:
    """Something that takes a transcript's write lock for as long as it likes."""
    await child.ready()
    async with WriteLock(path, lane="compaction", max_hold_ms=600_000):
        child.say("holding")
        await child.order("release")


async def appends(child: Child, *, path: str, line: str) -> None:
    """A mirror: it appends a line under the write lock, and goes."""
    async with WriteLock(path, lane="mirror") as hold:
        hold.append(line.encode() + b"\n", sync=True)
    child.say("appended")


async def asks_for_locks(child: Child, *, path: str, times: int, timeout_s: float) -> None:
    """Other writers of a transcript, one after the other: how many had its lock in time."""
    had = 0
    for _ in range(times):
        try:
            async with WriteLock(path, timeout_s=timeout_s):
                had += 1
        except LockWaitError as error:
            child.say("refused", error=str(error))
            break
    child.say("asked", had=had)
