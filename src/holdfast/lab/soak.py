"""
A soak: real runners on one state directory, killed and stopped at random, for a while.

    plan from a seed ─▶ model and receiver, runners, a sender ─▶ storm ─▶ calm: nobody is
    killed, everybody elsewhere is good, until nothing waits ─▶ all leave ─▶ what is left is
    checked from outside (`soak_checks.py`) ─▶ report

This process opens nothing and uses nothing of the store: it starts, signals, and looks.
Everything has a bound, and only processes that were started here are ever signalled.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import HoldfastError
from holdfast.lab import soak_report, soak_world
from holdfast.lab.crew import GONE, Crew
from holdfast.lab.figures import ON_DISK, quiet
from holdfast.lab.soak_plan import make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.lab.crew import Message
    from holdfast.lab.figures import Report
    from holdfast.lab.soak_plan import Blow, Plan

__all__ = ["run_soak"]

START_MOST_S: Final = 120.0
CALM_MOST_S: Final = 120.0
LEAVE_MOST_S: Final = 60.0
TELL_EVERY_S: Final = 3.0
LOOK_EVERY_S: Final = 0.5
TICK_S: Final = 0.05
LIVES_MOST: Final = 1_000
SENDER: Final = "sender"
ELSEWHERE: Final = "elsewhere"


def run_soak(
    *,
    processes: int = 3,
    sessions: int = 12,
    duration_s: float = 60.0,
    seed: int = 1,
    directory: str | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """
    Run one and judge it.

    Args:
        directory: where `soak.json` and `soak.md` go; None: nowhere.
        report: told how it goes, a line every few seconds.

    Returns:
        The JSON of `holdfast lab run soak`.  What it has left on disk is kept if it is not
        `clean`, and `kept` says where.

    Raises:
        BadRequestError: a number out of its bounds.
        RuntimeError: its processes did not come up.
    """
    plan = make_plan(processes=processes, sessions=sessions, duration_s=duration_s, seed=seed)
    above = directory or (ON_DISK if os.access(ON_DISK, os.W_OK) else os.getcwd())
    os.makedirs(above, exist_ok=True)
    work = tempfile.mkdtemp(prefix="holdfast-soak-", dir=above)
    soak = _Soak(plan, work, report or quiet)
    try:
        soak.run()
        world = soak_world.look(soak.state, work, soak.receiver)
        found = soak_report.judged(plan, world, soak.seen, soak.state)
    except BaseException:
        (report or quiet)(f"soak: broken off; what there is is kept in {work}")
        raise
    if found["clean"]:
        shutil.rmtree(work, ignore_errors=True)
    else:
        found["kept"] = work
    if directory is not None:
        soak_report.write(found, directory)
    return found


@dataclass(slots=True)
class Seen:
    """What the storm itself has to say."""

    killed: int = 0
    stopped: int = 0
    lives: int = 0
    trouble: list[str] = field(default_factory=list)  #: Who did not do as it should.
    #: Process → (seconds since the start, bytes), of those that lived through it all.
    rss: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    calm_s: float = 0.0  #: How long it took until nothing waited.


@dataclass(eq=False, slots=True)
class _Life:
    """One process of a runner, or of the sender."""

    name: str
    pid: int
    runner: int | None
    ready: bool = False
    hushed: bool = False
    done: bool = False
    gone: bool = False
    killed: bool = False
    go_on_s: float | None = None  #: Stopped, until then.


class _Soak:
    def __init__(self, plan: Plan, work: str, told: Report) -> None:
        self.plan, self.work, self.told = plan, work, told
        self.state = os.path.join(work, "state")
        self.seen = Seen()
        self.receiver: dict[str, Any] = {}
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._lives: dict[str, _Life] = {}
        self._blows = list(plan.blows)
        self._phase = "start"
        self._hook_url = ""
        self._environment: dict[str, str] = {}
        self._start_s = self._told_s = self._looked_s = time.monotonic()

    # --------------------------------------------------------------------- from end to end

    def run(self) -> None:
        self.plan.write(os.path.join(self.work, "plan.json"))
        with Crew(self._messages.put) as crew:
            self._crew = crew
            crew.start(
                ELSEWHERE, "holdfast.lab.soak_elsewhere:elsewhere",
                seed=self.plan.seed, secret=self.plan.secret,
            )  # fmt: skip
            self._until(lambda: bool(self._hook_url), START_MOST_S, "the world elsewhere")
            crew.order("go", ELSEWHERE)
            self._bear_sender()
            for number in range(self.plan.processes):
                self._bear(number)
            self._until(self._all_ready, START_MOST_S, "runners and sender")
            self._storm()
            self._calm()
            self._leave()

    def _storm(self) -> None:
        self._start_s = self._told_s = time.monotonic()
        with open(os.path.join(self.work, "start"), "w", encoding="utf-8") as file:
            file.write(repr(self._start_s))
        self._phase = "storm"
        for life in self._lives.values():
            self._crew.order("go", life.name)
        while self._now_s() < self.plan.duration_s:
            self._tick()
            while self._blows and self._blows[0].at_s <= self._now_s():
                self._strike(self._blows.pop(0))

    def _calm(self) -> None:
        """Nobody is struck any more; what waits has to come to its end."""
        self._phase = "calm"
        for life in self._living():
            self._go_on(life)
            self._crew.order("calm", life.name)
        self._crew.order("calm", ELSEWHERE)
        began_s = time.monotonic()
        end_s = began_s + CALM_MOST_S
        while time.monotonic() < end_s:
            self._tick()
            if all(life.ready and life.hushed for life in self._living()):
                found = self._standing()
                if found is not None and not found["open"] and not found["held"]:
                    break
        else:
            self.seen.trouble.append(f"something still waited after {CALM_MOST_S:g} s of calm")
        self.seen.calm_s = round(time.monotonic() - began_s, 1)

    def _leave(self) -> None:
        self._phase = "leave"
        for life in self._living():
            self._crew.order("stop", life.name)
        self._crew.order("stop", ELSEWHERE)
        end_s = time.monotonic() + LEAVE_MOST_S
        while time.monotonic() < end_s and (self._living() or not self.receiver):
            self._tick()
        for life in self._living():
            self.seen.trouble.append(f"{life.name} did not leave within {LEAVE_MOST_S:g} s")
        if not self.receiver:
            raise RuntimeError(self._crew.last_words(ELSEWHERE))

    # ------------------------------------------------------------------------- processes

    def _bear_sender(self) -> None:
        pid = self._crew.start(
            SENDER, "holdfast.lab.soak_child:sender", work=self.work, state=self.state,
            hook_url=self._hook_url,
        )  # fmt: skip
        self._lives[SENDER] = _Life(SENDER, pid, None)

    def _bear(self, number: int) -> None:
        self.seen.lives += 1
        if self.seen.lives > LIVES_MOST:
            raise RuntimeError(f"{LIVES_MOST} processes were started; something kills them all")
        name = f"runner {number}.{self.seen.lives}"
        pid = self._crew.start(
            name, "holdfast.lab.soak_child:runner", env=self._environment,
            work=self.work, state=self.state, number=number, life=self.seen.lives,
            hook_url=self._hook_url,
        )  # fmt: skip
        self._lives[name] = _Life(name, pid, number)

    def _living(self) -> list[_Life]:
        return [life for life in self._lives.values() if not life.gone]

    def _all_ready(self) -> bool:
        return all(life.ready for life in self._lives.values())

    def _strike(self, blow: Blow) -> None:
        for life in self._living():
            if life.runner != blow.runner:
                continue
            if blow.for_s is None:
                life.killed = True
                self.seen.killed += 1
                self._crew.signal(life.name, signal.SIGKILL)
            elif life.go_on_s is None:
                life.go_on_s = time.monotonic() + blow.for_s
                self.seen.stopped += 1
                self._crew.signal(life.name, signal.SIGSTOP)

    def _go_on(self, life: _Life) -> None:
        if life.go_on_s is not None:
            life.go_on_s = None
            self._crew.signal(life.name, signal.SIGCONT)

    # -------------------------------------------------------------------- what comes in

    def _tick(self) -> None:
        """Hear what is said, wake who has slept enough, look, tell."""
        with suppress(queue.Empty):
            self._hear(self._messages.get(timeout=TICK_S))
        now_s = time.monotonic()
        for life in self._living():
            if life.go_on_s is not None and life.go_on_s <= now_s:
                self._go_on(life)
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._measure()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            self._tell()

    def _hear(self, message: Message) -> None:
        if message.member == ELSEWHERE:
            self._hear_elsewhere(message)
            return
        life = self._lives[message.member]
        match message.kind:
            case "ready":
                life.ready = True
                if self._phase != "start":
                    self._crew.order("go", life.name)
                if self._phase in {"calm", "leave"}:
                    self._crew.order("calm", life.name)
            case "hushed":
                life.hushed = True
            case "done":
                life.done = True
            case _ if message.kind == GONE:
                self._bury(life, int(message.facts["exit_code"]))

    def _hear_elsewhere(self, message: Message) -> None:
        match message.kind:
            case "ready":
                self._hook_url = str(message.facts["hook_url"])
                base_url = str(message.facts["base_url"])
                self._environment = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "soak"}
            case "done":
                self.receiver = dict(message.facts)
            case _ if message.kind == GONE and not self.receiver:
                raise RuntimeError(self._crew.last_words(ELSEWHERE))

    def _bury(self, life: _Life, code: int) -> None:
        life.gone = True
        frozen = code == -signal.SIGKILL and self.plan.frozen_holder == "kill"
        if not (life.killed or life.done or frozen):
            self.seen.trouble.append(self._crew.last_words(life.name))
        if life.done and code:
            self.seen.trouble.append(self._crew.last_words(life.name))
        self._crew.forget(life.name)
        if not life.done:
            self.seen.rss.pop(life.name, None)
        if life.runner is not None and self._phase in {"storm", "calm"}:
            self._bear(life.runner)

    def _measure(self) -> None:
        if self._phase in {"storm", "calm"}:
            for life in self._living():
                if (found := _rss(life.pid)) is not None:
                    self.seen.rss.setdefault(life.name, []).append((self._now_s(), found))

    def _standing(self) -> dict[str, int] | None:
        try:
            return soak_world.standing(self.state)
        except HoldfastError:
            return None  # Opened and closed all along, or not there yet.

    def _tell(self) -> None:
        found = self._standing() or {}
        sleeping = [life.name for life in self._living() if life.go_on_s is not None]
        self.told(
            f"soak: {self._phase} {self._now_s():5.1f} s: {found.get('accepted', 0)} accepted,"
            f" {found.get('open', 0)} open; {self.seen.killed} killed, {self.seen.stopped}"
            f" stopped{', now ' + ', '.join(sleeping) if sleeping else ''}"
        )

    def _now_s(self) -> float:
        return time.monotonic() - self._start_s

    def _until(self, condition: Callable[[], bool], bound_s: float, what: str) -> None:
        end_s = time.monotonic() + bound_s
        while not condition():
            if time.monotonic() >= end_s:
                raise RuntimeError(f"not up within {bound_s:g} s: {what}")
            self._tick()
            for life in self._lives.values():
                if life.gone:
                    raise RuntimeError("; ".join(self.seen.trouble))


def _rss(pid: int) -> int | None:
    """Bytes that a process has in memory; None: it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError, ValueError):
        return None
