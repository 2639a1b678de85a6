"""
Letting go of a session, in simulated processes: on request, and by draining.

Somebody asks whoever holds a session to let go of it; a process is stopped in good order
while its turns run.  What must be true of it is looked at from outside:

    answered    in a world where nothing strikes, who is asked answers, and what it let go of
                is let go of
    wanted      nobody is handed over without having been asked for
    drained     who drains starts nothing more; who has left holds nothing
    told        who was told that its reply is committed has replied
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.handover import LET_GO
from holdfast.errors import NotFoundError, StoreError

if TYPE_CHECKING:
    from holdfast._runtime.runtime import Holdfast
    from holdfast.backends.memory.world import World as Control
    from holdfast.testing._sim_world import World
    from holdfast.types import Turn

__all__ = ["Letting"]

PATIENCE_S: Final = (0.6, 6.0)  #: How long who asks waits for an answer.
FINISH_S: Final = (0.0, 0.1, 5.0)  #: How long who drains lets its turns run on.


class Letting:
    """One world's asker, and observer of what comes of it."""

    def __init__(self, world: World, control: Control) -> None:
        self._world, self._control = world, control
        self.told: dict[str, str] = {}  #: Turn → the reply its own program saw committed.
        self.answers: Counter[str] = Counter()  #: What came of requests, and of draining.

    @property
    def _calm(self) -> bool:
        storm = self._world.storm
        return storm is None or not storm.struck

    # ------------------------------------------------------------------- on request

    async def ask(self, hf: Holdfast, key: str) -> None:
        """Ask whoever holds *key*'s session to let go of it."""
        with suppress(StoreError, NotFoundError):
            before = self._lease_of(key)
            handed = await hf.handover(key, timeout_s=self._world.lots.choice(PATIENCE_S))
            self.answers[f"handover {handed.answer}"] += 1
            self._world.note(f"{key} handed over: {handed}")
            kept = before is not None and self._lease_of(key) == before
            if not (kept and self._calm):
                return
            if handed.answer == LET_GO:
                self._world.fail(f"{handed.turn_id} was let go of, and is held: {before}")
            if handed.answer is None:
                self._world.fail(f"{before} was asked for, and nobody answered")

    def _lease_of(self, key: str) -> tuple[str, int, bool] | None:
        session_id = self._control.keys.get(key)
        lease = None if session_id is None else self._control.leases.get(session_id)
        return None if lease is None else (lease.turn_id, lease.token, lease.recovering)

    def moved(self, turn: Turn) -> None:
        """A turn runs no more, or ended."""
        if turn.reason == "handed_over" and not any(
            each.turn_id == turn.turn_id for each in self._control.handovers.values()
        ):
            self._world.fail(f"{turn.text!r} was handed over, and nobody asked for it")

    # ------------------------------------------------------------------- by draining

    async def drain(self, hf: Holdfast) -> None:
        """Stop *hf* in good order; now and then whoever stops it grows impatient."""
        lots = self._world.lots
        draining = asyncio.ensure_future(hf.drain(finish_s=lots.choice(FINISH_S)))
        if lots.random() < 0.3:
            await asyncio.wait({draining}, timeout=lots.choice(FINISH_S))
            await hf.drain(finish_s=0.0)
        drained = await draining
        self.answers["drained"] += 1
        self._world.note(f"{self._world.process.name} has drained: {drained}")

    def started(self, turn: Turn) -> None:
        owner = self._control.owners.get(turn.owner_id)  # type: ignore[arg-type]
        if owner is None or owner.draining:
            self._world.fail(f"{turn.text!r} was started by one that drains, or is gone")

    def left(self, owner_id: Any) -> None:
        """A process has closed everything.  Whom it was burying, the next reaper buries."""
        for lease in self._control.leases.values():
            if lease.owner_id == owner_id and self._calm and not lease.recovering:
                self._world.fail(f"{self._world.process.name} has left, and holds {lease}")

    # ------------------------------------------------------------------- in the end

    def final(self) -> None:
        for turn_id, text in self.told.items():
            turn = self._control.turns[turn_id]  # type: ignore[index]
            if (turn.outcome, turn.reply) != ("replied", text):
                self._world.fail(f"{turn.text!r} has replied, as it was told; its row: {turn}")
