"""
Processes of the incidents, each with one guarantee taken out.

Started as ``support.mutant_players:…`` by a scenario's `Hands`, with tests/ on PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast._runtime import booking, run
from holdfast._runtime.delivering import Deliverer
from holdfast._runtime.handing import Handing
from holdfast._runtime.runner import Runner
from holdfast.backends.files.control import two_ways
from holdfast.backends.files.control.writer import Writer
from holdfast.lab.child import Child
from holdfast.lab.scenarios import _peers

TESTS = str(Path(__file__).parents[1])


def known_to_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on what is started here can be found by children."""
    monkeypatch.setenv("PYTHONPATH", TESTS)


async def counts_and_touches(child: Child, *, state: str, **more: Any) -> None:
    """It opens the database file itself, and closes it: its process has no lock on it then."""
    real = Writer._transact

    def transact(self: Writer, *arguments: Any) -> None:
        real(self, *arguments)
        (Path(state) / "control.db").open("rb").close()

    Writer._transact = transact  # type: ignore[method-assign,assignment]
    await _peers.counts(child, state=state, **more)


async def counts_impatiently(child: Child, **more: Any) -> None:
    two_ways.GATE_TIMEOUT_S = 1.3  # type: ignore[misc]
    await _peers.counts(child, **more)


async def counts_unfenced(child: Child, **more: Any) -> None:
    """Nobody tells it that it was superseded, and it does not ask."""
    booking.check_token = lambda *_: None
    Runner.fenced = lambda _: None  # type: ignore[method-assign,assignment]
    await _peers.counts(child, **more)


async def counts_what_it_knew(child: Child, **more: Any) -> None:
    """What the conversation was is read once, before any lease."""
    real, known = run._prompt, dict[str, tuple[Mapping[str, Any], ...]]()

    def prompt(turn: Any, begun: Any) -> Any:
        made = real(turn, begun)
        return replace(made, history=known.setdefault(made.session_id, made.history))

    run._prompt = prompt
    await _peers.counts(child, **more)


async def sits_deaf(child: Child, **more: Any) -> None:
    async def nothing(_: Handing) -> None: ...

    Handing.look = nothing  # type: ignore[method-assign,assignment]
    await _peers.sits(child, **more)


async def delivers_carelessly(child: Child, **more: Any) -> None:
    """What is on its way is not active work."""
    real = Deliverer.stop

    async def stop(self: Deliverer, *, finish_s: float) -> None:
        del finish_s
        await real(self, finish_s=0)

    Deliverer.stop = stop  # type: ignore[method-assign]
    await _peers.delivers(child, **more)
