"""
The third layer: whole processes, with everything that Holdfast is to an embedder.

Each simulated process opens the real `Holdfast`: admission, runner, receipts, pump, the
keeper with its own thread, recovery.  Control is a memory `World`, transcripts are the real
files on the simulated disk, agents fail as agents do.  Processes are killed and started
again, stopped, drained; the promises are looked at after every transaction and every write.
When the storm is over, whoever lives must bring every accepted turn to its outcome, and
leave nothing held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast._core.settings import Lane, Settings
from holdfast.backends.memory.world import World as Control
from holdfast.testing._sim_channels import SETTLED, Receiver
from holdfast.testing._sim_handing import Letting
from holdfast.testing._sim_program import Program
from holdfast.testing._sim_promises import Promises
from holdfast.testing._sim_records import Records
from holdfast.testing._sim_senders import drawn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from holdfast.ports.channels import Ambiguous
    from holdfast.testing._sim_disk import Inode
    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_senders import Message
    from holdfast.testing._sim_world import World
    from holdfast.types import Delivery

__all__ = ["AIMS", "Whole"]

AIMS: Final = (
    "point.append.checked", "point.append.written", "point.commit.appended",
    "point.commit.released", "point.effect.loaded", "point.effect.left",
    "point.token.checked", "point.stream.first_text", "effect.tool", "effect.made",
    "control.admit", "control.pick", "control.make_effective", "control.commit",
    "control.end", "control.put_back", "control.take_over", "control.cancel",
    "control.take", "control.add_made", "control.begin_tool", "control.end_tool",
    "effect.deliver", "effect.delivered", "control.next", "control.settle",
    "control.wait_for", "control.regain", "control.reset", "control.bury",
    "control.ask_handover", "control.answer_handover", "control.set_draining",
)  # fmt: skip
BOUND_S: Final = 30.0  #: After the storm every turn has its outcome within this, …
BOUND_EACH_S: Final = 10.0  #: … and this for each turn.
LOOK_S: Final = 5.0  #: How often that is looked at.
REBORN_S: Final = (0.05, 0.3, 1.5)  #: How long after its death a process is started again.


class Whole:
    """One store, its processes, and what must be true of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.settings = _settings(world.lots)
        self._ids = 0
        self.control = Control(
            now_ms=lambda: world.wall_ns() // 1_000_000,
            monotonic=lambda: world.now_ns / 1e9,
            new_id=self._new_id,
        )
        self.records = Records(world, lambda: self.control.turns)
        self.letting = Letting(world, self.control)
        self.promises = Promises(world, self.control, self.settings, self.records, self.letting)
        self.receiver = Receiver(world, lambda: self.control.deliveries)
        self._owed: dict[str, Delivery] = {}
        #: One machine's channel: the same in every process.
        self.ambiguous: Ambiguous = world.lots.choice(("resend", "give_up"))
        self.reconciles = world.lots.random() < 0.4
        self.over = False
        self.messages = drawn(world.lots)
        self._programs: dict[int, Program] = {}  #: By the number of their process.
        self._calm_at_s: float | None = None  #: Since when no storm strikes.
        world.oracle.turns = self
        self._spread()
        world.at(LOOK_S, self._look_at_time)

    def _new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids:06d}"

    def _spread(self) -> None:
        """Give every message to a process."""
        lots = self.world.lots
        count = lots.randint(1, 3)
        each: list[list[Message]] = [[] for _ in range(count)]
        for message in self.messages:
            lots.choice(each).append(message)
        for number, mine in enumerate(each):
            runs = number == 0 or lots.random() < 0.8
            self.start(f"p{number}", mine, runs=runs, leaves=lots.random() < 0.2)

    def start(
        self,
        name: str,
        messages: list[Message],
        *,
        runs: bool = True,
        leaves: bool = False,
        after_s: float = 0.0,
    ) -> None:
        """A process that hands in *messages*, and answers turns if it *runs* them."""
        program = Program(self, messages, runs=runs)
        if leaves:
            program.leaves_s = self.world.lots.random() * 2
        process = self.world.spawn(name, program, after_s=after_s)
        process.offset_ns = self.world.lots.randrange(10**15)
        process.rate = 1.0 + self.world.lots.choice((0.0, 0.0, 0.01, -0.01))
        process.wall_step_ns = self.world.lots.randrange(-(10**12), 10**12)
        self._programs[process.number] = program

    @property
    def runner(self) -> Any:
        """The body of one that comes last, when nobody else is left."""
        return Program(self, [])

    # ---------------------------------------------------------------- the world tells

    def died(self, process: Process) -> None:
        """It was killed.  Now and then nobody starts it again, but somebody must run turns."""
        program = self._programs.get(process.number)
        if program is None:
            return
        if program.owner_id is not None:
            self.control.kill(program.owner_id)
        self.after(process, program)

    def after(self, process: Process, program: Program) -> None:
        """Whoever comes after a process that is no more."""
        live = [
            self._programs[each.number] for each in self.world.processes
            if each is not process and not each.dead and each.number in self._programs
        ]  # fmt: skip
        needed = not any(each.runs for each in live)
        if self.over or (not needed and self.world.lots.random() < 0.3):
            return
        left = [each for each in program.messages if not each.over]
        pause_s = self.world.lots.choice(REBORN_S)
        self.start(f"{process.name}+", left, runs=needed or program.runs, after_s=pause_s)

    def wrote(self, process: Process, inode: Inode, _: bytes) -> None:
        self.records.wrote(process, inode)

    def cut(self, inode: Inode) -> None:
        self.records.cut(inode)

    def loaded(self) -> None:
        """The point `effect.loaded` was reached by whoever runs now."""
        self.records.loaded(self.world.process)

    def changed(self) -> None:
        """After a transaction."""
        self.promises.changed()
        self._owed = self.receiver.look(self._owed)
        self.look()

    # ------------------------------------------------------------------- until the end

    def look(self) -> None:
        """Whether there is nothing left to do."""
        if self.over:
            return
        live = [
            self._programs[each.number] for each in self.world.processes
            if not each.dead and each.number in self._programs
        ]  # fmt: skip
        if any(not each.done for each in live):
            return
        owes = any(row.state not in SETTLED for row in self.control.deliveries.values())
        if not owes and all(turn.state == "done" for turn in self.control.turns.values()):
            self.over = True
            self.world.note("everything has ended")
            for program in live:
                program.told()

    def _look_at_time(self) -> None:
        """Liveness: whoever lives goes on, once nothing strikes any more."""
        if self.over:
            return
        now_s = self.now_s()
        if self.world.strike_at >= 0 or any(each.frozen for each in self.world.processes):
            self._calm_at_s = None
        elif self._calm_at_s is None:
            self._calm_at_s = now_s
        bound_s = BOUND_S + BOUND_EACH_S * len(self.messages)
        if self._calm_at_s is not None and now_s - self._calm_at_s > bound_s:
            self.world.fail(f"{bound_s:g} s after the storm: {self._unended()}")
        self.world.at(LOOK_S, self._look_at_time)

    def _unended(self) -> str:
        left = [
            f"{turn.text!r} is {turn.state} ({turn.reason}, host {turn.host},"
            f" home {turn.home}, attempts {turn.attempts})"
            for turn in self.control.turns.values()
            if turn.state != "done"
        ]
        left += [
            f"{row.delivery_id} is {row.state} ({row.reason}, {row.attempts} attempts)"
            for row in self._owed.values()
            if row.state not in SETTLED
        ]
        unheard = [each.text for each in self.messages if each.sent and not each.over]
        return f"{'; '.join(left) or 'every turn has ended'}; unheard: {unheard}"

    def final(self) -> None:
        """After the last process."""
        fail, control = self.world.fail, self.control
        for turn in control.turns.values():
            if turn.state != "done":
                fail(f"{turn.text!r} has no outcome: {turn}")
        if control.leases or control.slots:
            fail(f"left: leases {control.leases}, slots {control.slots}")
        self.receiver.final()
        self.letting.final()
        texts = {turn.text: turn for turn in control.turns.values()}
        for message in self.messages:
            self._look_at(message, texts.get(message.text))
        self.records.verify(torn=self.world.oracle.torn)

    def _look_at(self, message: Message, turn: Any) -> None:
        fail = self.world.fail
        if message.heard is not None:
            if turn is None:
                fail(f"{message.text!r} was accepted, and is not there")
            seen = (message.heard.kind, message.heard.reason, message.heard.text)
            host = self.control.turns.get(turn.merged_into, turn)
            if seen != (turn.outcome, turn.reason, host.reply):
                fail(f"{message.text!r}: its sender saw {seen}; its row says {turn}")
        elif message.refused in {"rejected", "queue_full", "deadlock"} and turn is not None:
            fail(f"{message.text!r} was refused ({message.refused}), and is there: {turn}")

    @property
    def outcomes(self) -> Mapping[str, int]:
        """What came of the turns, and of who was asked to let go; and how often."""
        return self.promises.outcomes + self.letting.answers

    def now_s(self) -> float:
        """True time: of the world, and of no process."""
        return self.world.now_ns / 1e9


def _settings(lots: Random) -> Settings:
    """Bounds in fractions of a second, so that a run is short; lanes that are soon full."""
    lanes = {
        "user": Lane(lots.choice((1, 2, 32)), 100),
        "mail": Lane(lots.choice((1, 2)), 50),  # People's, too.
        "subagent": Lane(lots.choice((1, 4)), 60),
        "cron": Lane(lots.choice((1, 2)), 40),
        "heartbeat": Lane(1, 20),
        "maintenance": Lane(1, 10),
    }
    return Settings(
        lease_ms=lots.choice((900, 1_800)), settle_ms=200, idle_timeout_ms=600,
        attempts_max=lots.choice((3, 3, 6)), reruns_max=1, progress_timeout_ms=2_000,
        max_ms=lots.choice((0, 0, 4_000)), queue_max=lots.choice((3, 200, 200)),
        collect_quiet_ms=100, collect_max=3, write_lock_acquire_timeout_ms=2_000,
        durability=lots.choice(("always", "turn", "turn", "os")), lanes=lanes,
    )  # fmt: skip
