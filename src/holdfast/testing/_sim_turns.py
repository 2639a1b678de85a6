"""
The second layer: turns, leased with tokens, answered into a transcript.

Simulated processes run the real `_runtime` of a turn (`Run`, `Recovery`) on the real event
loop code, over a store whose control is a memory `World` and whose transcripts are the real
files on the simulated disk.  They are stopped and killed anywhere; leases move on meanwhile.
What must hold: every turn has one final reply in the transcript and one outcome in its row,
and nothing is appended under a token that is not the newest.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.settings import Settings
from holdfast._runtime.recovery import Recovery
from holdfast._runtime.run import Run
from holdfast.backends.memory.world import World as Control
from holdfast.errors import HoldfastError
from holdfast.testing._sim_loop import run_loop
from holdfast.testing._sim_store import SimStore
from holdfast.types import Admission, Text, TurnId
from holdfast.types import Final as Reply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from random import Random

    from holdfast.ports import ToolHook
    from holdfast.testing._sim_disk import Inode
    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_world import World
    from holdfast.types import AgentEvent, Prompt, Turn

__all__ = ["Turns"]

KEY: Final = "agent:main:main"
SILENT_S: Final = 0.4  #: Whose lease has not moved for so long is called silent.
GIVE_UP_S: Final = 60.0


class _Steps:
    """A control store whose every call is a point where another process may run."""

    def __init__(
        self,
        inner: Any,
        step: Callable[[str, tuple[Any, ...]], object],
        checked: Callable[[], None],
    ) -> None:
        self._inner, self._step, self._checked = inner, step, checked

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)

        def stepped(*args: Any, **named: Any) -> Any:
            self._step(f"rows.{name}", ())
            if name == "newest_token":
                self._checked()
            return call(*args, **named)

        return stepped


class _Agent:
    """Says which turn it answers, after a while."""

    def __init__(self, lots: Random) -> None:
        self._lots = lots

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        assert hook is not None
        await asyncio.sleep(self._lots.choice((0.0, 0.01, 0.3)))
        text = f"reply to {prompt.text}"
        yield Text(text)
        await asyncio.sleep(self._lots.choice((0.0, 0.01)))
        content = [{"type": "text", "text": text}]
        yield Reply({"role": "assistant", "content": content, "stopReason": "stop"}, text)


class Turns:
    """One simulated store, its runners, and what must be true of its turns."""

    def __init__(self, world: World, *, turns: int, settings: Settings | None = None) -> None:
        self._world, self._count = world, turns
        self._ids = 0
        self._settings = settings or Settings(settle_ms=200, attempts_max=50, reruns_max=50)
        self._control = Control(
            now_ms=lambda: world.wall_ns() // 1_000_000,
            monotonic=lambda: world.now_ns / 1e9,
            new_id=self._new_id,
        )
        self._owners: dict[int, str] = {}
        self._effective = 0  #: The highest token that was found good under the write lock.
        self._admitted: dict[str, str] = {}
        world.oracle.turns = self

    def _new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids:06d}"

    # ------------------------------------------------------------------ programs

    def runner(self) -> None:
        """The body of a runner's process: until every turn has ended."""
        run_loop(self._world, self._run)

    def admitter(self) -> None:
        """Somebody sends all messages, one after the other."""
        run_loop(self._world, self._admit)

    async def _admit(self) -> None:
        store = self._store()
        await store.control.register(store.owner)
        for number in range(self._count):
            turn_id = f"turn-{number}"
            asked = Admission(
                turn_id=TurnId(turn_id), session_key=KEY, agent_id="main", text=turn_id,
                lane="user", source="sim", priority=100, policy="enqueue", queue_max=100,
            )  # fmt: skip
            await store.control.admit(asked, ["main"])
            self._admitted[turn_id] = turn_id
            await asyncio.sleep(self._world.lots.random() * 0.05)

    def _store(self) -> SimStore:
        store = SimStore(self._control, self._settings)
        self._owners[self._world.process.number] = store.owner.owner_id
        me = store.owner.owner_id
        store.control = _Steps(  # type: ignore[assignment]
            store.control, self._world.step, lambda: self.checked(me)
        )
        return store

    async def _run(self) -> None:
        store = self._store()
        me, agent = store.owner.owner_id, _Agent(self._world.lots)
        await store.control.register(store.owner)
        await store.control.register_runner(me, ["main"], permanent=True)
        recovery = Recovery(store, self._settings, lambda _: None)
        seen: dict[str, tuple[Any, float]] = {}
        loop = asyncio.get_running_loop()
        until_s = loop.time() + GIVE_UP_S
        while not await self._all_ended(store) and loop.time() < until_s:
            try:
                leased = await store.control.pick(me, ["main"], self._settings.lanes)
                if leased is not None:
                    await Run(store, self._settings, leased).answer(agent)
                await self._reap(store, recovery, seen, loop.time())
            except HoldfastError as error:
                self._world.note(f"{self._world.process.name}: {error}")
            await asyncio.sleep(0.02)

    async def _all_ended(self, store: SimStore) -> bool:
        turns = await store.control.turns()
        return len(turns) == self._count and all(turn.ended for turn in turns)

    async def _reap(
        self,
        store: SimStore,
        recovery: Recovery,
        seen: dict[str, tuple[Any, float]],
        now_s: float,
    ) -> None:
        look = await store.control.look(store.owner.owner_id)
        for lease in look.leases:
            state = (lease.token, lease.owner_id, lease.recovering)
            if seen.get(lease.session_id, (None, 0.0))[0] != state:
                seen[lease.session_id] = (state, now_s)
            since_s = seen[lease.session_id][1]
            if lease.owner_id in self._control.gone:
                await recovery.end_attempt(lease, "owner_died")
            elif now_s - since_s > SILENT_S:
                await recovery.end_attempt(lease, "owner_silent")

    # ------------------------------------------------------------------ the oracle

    def died(self, process: Process) -> None:
        owner = self._owners.get(process.number)
        if owner is not None:
            self._control.kill(owner)  # type: ignore[arg-type]

    def checked(self, owner_id: str) -> None:
        """A token was compared.  Under the write lock, if it held, older ones are over."""
        process = self._world.process
        if not any(one in one.inode.flock for one in process.fds.values()):
            return
        for lease in self._control.leases.values():
            if lease.owner_id == owner_id:
                self._effective = max(self._effective, lease.token)

    def wrote(self, process: Process, _: Inode, data: bytes) -> None:
        """An append by token n comes before the load of token n + 1, or is refused."""
        if not any(entry.get("type") == "message" for entry in _entries(data)):
            return
        token = _token_of(process)
        if token is not None and token < self._effective:
            self._world.fail(
                f"{process.name} appended under token {token}, after {self._effective} loaded"
            )

    def loaded(self) -> None:
        """The point `effect.loaded` was reached."""

    def cut(self, inode: Inode) -> None:
        """A write that was torn is taken back."""

    def final(self) -> None:
        """After the last runner: one reply a turn, and every turn replied."""
        rows = {str(turn.turn_id): turn for turn in self._control.turns.values()}
        for turn_id in self._admitted:
            if turn_id not in rows or not rows[turn_id].ended:
                self._world.fail(f"{turn_id} has no outcome")
        replies = self._replies()
        for turn_id, turn in rows.items():
            self._look_at(turn_id, turn, replies.get(turn_id, []))

    def _look_at(self, turn_id: str, turn: Turn, replies: list[str]) -> None:
        if len(replies) > 1:
            self._world.fail(f"{turn_id} was answered {len(replies)} times")
        if turn.outcome == "replied" and not replies:
            self._world.fail(f"the reply to {turn_id} is lost")
        if turn.outcome != "replied":
            self._world.fail(f"{turn_id} ended {turn.outcome}, {turn.reason}: {turn.hint}")
        if replies and replies != [f"reply to {turn_id}"]:
            self._world.fail(f"{turn_id} was answered {replies}")

    def _replies(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path, inode in self._world.disk.files():
            if not path.endswith(".jsonl"):
                continue
            for entry in _entries(bytes(inode.data)):
                message, stamp = entry.get("message") or {}, entry.get("holdfast") or {}
                if message.get("role") == "assistant":
                    text = "".join(part["text"] for part in message["content"])
                    found.setdefault(stamp["turn"], []).append(text)
        return found


def _token_of(process: Process) -> int | None:
    """The token that the claim of *process* names: that of whoever appends."""
    for description in process.fds.values():
        if b'"claimId"' in description.inode.data:
            token: int | None = json.loads(description.inode.data).get("token")
            return token
    return None


def _entries(data: bytes) -> Iterator[dict[str, Any]]:
    """The lines that are JSON objects."""
    for line in data.splitlines():
        if line.startswith(b'{"'):
            with suppress(ValueError):
                yield json.loads(line)
