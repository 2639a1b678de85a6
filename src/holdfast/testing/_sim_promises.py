"""
The promises, as an oracle: looked at after every transaction of the control store.

    one writer      at most one lease a session, held by the turn that runs; tokens only grow
    accepted        no turn vanishes, moves otherwise than by its table, or ends twice
    order           in one session no person's message overtakes an earlier one
    slots           never more than the lane has, none without a running turn
    replied         the row's final entry is the one that the transcript has
    merged          into a turn that replied, above whose final entry the question stands
    tools           a tool without replay does what it does at most once
    live output     nothing of an older token is shown once a newer one's is
    not blind       who answers has seen every reply that was there when it took its lease
    by right        no row changes under a token that is not the lease's
    attempts        who goes back for what it cannot help has its attempt back

Nothing here asks the runtime or the store what they think of it: rows and bytes only.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.tree import text_of
from holdfast.backends.memory.live import LiveTail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.settings import Settings
    from holdfast.backends.memory.world import World as Control
    from holdfast.testing._sim_handing import Letting
    from holdfast.testing._sim_records import Records
    from holdfast.testing._sim_world import World
    from holdfast.types import Prompt, ToolCall, Turn

__all__ = ["Promises"]

SYSTEM: Final = frozenset({"subagent", "cron", "heartbeat", "maintenance"})
#: Why a turn goes back with its attempt: it was not its fault.
BLAMELESS: Final = frozenset(
    {"drained", "taken_over", "write_lock", "lock_lost", "disk_full", "handed_over"}
)
PREEMPTED_MOST: Final = 2  #: In a row, of one session.

_ACCEPTED, _RUNNING, _COMMITTED, _DONE = "accepted", "running", "committed", "done"
#: As a transaction may leave them: COMMIT and SETTLE may be one.
MOVES: Final = frozenset(
    {
        (_ACCEPTED, _RUNNING), (_ACCEPTED, _DONE), (_RUNNING, _ACCEPTED),
        (_RUNNING, _COMMITTED), (_RUNNING, _DONE), (_COMMITTED, _DONE),
    }
)  # fmt: skip


class Promises:
    """One world's observer of rows."""

    def __init__(
        self, world: World, control: Control, settings: Settings, records: Records,
        letting: Letting,
    ) -> None:  # fmt: skip
        self._world, self._control, self._settings = world, control, settings
        self._records, self._letting = records, letting
        self._held: dict[str, tuple[str, int]] = {}  #: Session → (turn, token), as it was.
        self._rows: dict[Any, Turn] = {}  #: As they stood after the last transaction.
        self._tokens: Counter[str] = Counter()  #: Session → the greatest token ever seen.
        self._leased: dict[tuple[str, str], tuple[str, ...]] = {}
        self._preempted: Counter[str] = Counter()  #: Session → in a row.
        self._rolled_back: dict[str, set[str]] = {}
        self._failures: dict[str, set[str]] = {}
        self._effects: Counter[str] = Counter()
        self._for_good: set[str] = set()  #: Turns with an effect that cannot be had twice.
        self._tails: dict[str, tuple[LiveTail, list[int]]] = {}  #: And the tokens it showed.
        self.outcomes: Counter[str] = Counter()

    def rows(self) -> Mapping[Any, Turn]:
        """The turns as they are."""
        return self._control.turns

    # ------------------------------------------------------- after a transaction

    def changed(self) -> None:
        """A transaction was made."""
        rows, before = self._control.turns, self._rows
        moved = [turn for turn_id, turn in rows.items() if before.get(turn_id) is not turn]
        if len(rows) < len(before):
            self._world.fail(f"turns are gone: {sorted(before.keys() - rows.keys())}")
        if not moved:
            return
        for turn in moved:
            self._moved(before.get(turn.turn_id), turn)
        self._rows = dict(rows)
        self._holds()

    def _moved(self, old: Turn | None, new: Turn) -> None:
        if old is None:
            self._admitted(new)
            return
        if (old.turn_id, old.admission, old.text) != (new.turn_id, new.admission, new.text):
            self._world.fail(f"an accepted turn was changed: {old} is now {new}")
        if old.outcome is not None and _end(old) != _end(new):
            self._world.fail(f"{_name(old)} ended twice: {_end(old)}, then {_end(new)}")
        if old.state != new.state:
            self._took_a_step(old, new)
        if old.outcome is None and new.outcome is not None:
            self._ended(old, new)
        self._watch(new)

    def _took_a_step(self, old: Turn, new: Turn) -> None:
        if (old.state, new.state) not in MOVES:
            self._world.fail(f"{_name(new)} went from {old.state} to {new.state}")
        if new.state == _RUNNING:
            self._started(new)
        if old.state == _RUNNING:
            self._letting.moved(new)
        if (old.state, new.state) == (_RUNNING, _ACCEPTED):
            given_back = old.attempts - new.attempts
            if given_back != (new.reason in BLAMELESS):
                self._world.fail(
                    f"{_name(new)} went back, {new.reason}: {given_back} given back"
                )

    def _watch(self, turn: Turn) -> None:
        """Read what it shows live, as somebody would who watches it all the time."""
        logs = self._control.logs.get(turn.turn_id)
        if not logs:
            return
        fresh = (LiveTail(self._control, turn.turn_id), [0])
        tail, shown = self._tails.setdefault(turn.turn_id, fresh)
        for event in tail.read(max(logs)):
            if event.log_id[0] < shown[-1]:
                self._world.fail(f"{_name(turn)} shows token {event.log_id[0]}, after {shown}")
            shown[-1] = event.log_id[0]

    def _admitted(self, turn: Turn) -> None:
        earlier = max((each.admission for each in self._rows.values()), default=0)
        if turn.admission <= earlier:
            self._world.fail(f"{_name(turn)} was admitted as {turn.admission}, after {earlier}")
        waiting = [
            each for each in self._rows.values()
            if each.session_id == turn.session_id and each.state == _ACCEPTED
        ]  # fmt: skip
        if len(waiting) >= self._settings.queue_max:
            self._world.fail(f"{_name(turn)} was accepted behind {len(waiting)} others")
        if turn.idempotency_key is not None and any(
            (each.session_key, each.idempotency_key) == (turn.session_key, turn.idempotency_key)
            for each in self._rows.values()
        ):
            self._world.fail(f"{_name(turn)} was accepted twice")

    def _started(self, turn: Turn) -> None:
        self._letting.started(turn)
        if turn.host is not None:
            self._world.fail(f"{_name(turn)} runs, and is merged into {turn.host}")
        for other in self._rows.values():
            if (
                other.session_id == turn.session_id
                and other.admission < turn.admission
                and other.state == _ACCEPTED
                and other.host is None
                and not {other.lane, turn.lane} & SYSTEM
            ):
                self._world.fail(f"{_name(turn)} overtakes {_name(other)}")
        known = tuple(
            each.reply or "" for each in self._rows.values()
            if each.session_id == turn.session_id and each.outcome == "replied"
        )  # fmt: skip
        assert turn.owner_id is not None
        self._leased.setdefault((turn.turn_id, turn.owner_id), known)

    def _ended(self, old: Turn, turn: Turn) -> None:
        self.outcomes[f"{turn.outcome} {turn.reason or ''}".strip()] += 1
        finals = self._records.finals.get(turn.turn_id, [])
        ended = self._records.ends.get(turn.turn_id, [])
        if turn.outcome == "replied":
            if finals != [turn.final_entry]:
                self._world.fail(f"{_name(turn)} replied {turn.final_entry}: there is {finals}")
        elif finals:
            self._world.fail(f"{_name(turn)} ended {_end(turn)}, and has a reply: {finals}")
        elif turn.outcome == "merged":
            self._merged(turn)
        elif ended and turn.outcome not in ended:
            self._world.fail(f"{_name(turn)} ended {_end(turn)}; its transcript says {ended}")
        self._as_asked(old, turn)
        if turn.lane == "heartbeat" and turn.started_at is not None:
            self._count_preempted(turn)

    def _as_asked(self, old: Turn, turn: Turn) -> None:
        if turn.outcome == "cancelled" and not (old.abort_requested or self._wanted(old, turn)):
            self._world.fail(f"{_name(turn)} ended {_end(turn)}, and nobody wanted it to")
        if turn.reason == "rolled_back" and not self._records.followed(turn):
            self._rolled_back.setdefault(turn.session_id, set()).add(turn.text)
        if turn.outcome == "failed":
            self._failed(turn)

    def _count_preempted(self, turn: Turn) -> None:
        if turn.reason != "preempted":
            self._preempted[turn.session_id] = 0
            return
        if turn.turn_id in self._for_good:
            self._world.fail(f"{_name(turn)} was pre-empted after a tool without replay")
        self._preempted[turn.session_id] += 1
        if self._preempted[turn.session_id] > PREEMPTED_MOST:
            self._world.fail(f"{_name(turn)}: heartbeats were pre-empted three times")

    def _wanted(self, old: Turn, turn: Turn) -> bool:
        """One that waits is ended by the very transaction that asks for it."""
        by_itself = old.state == _ACCEPTED and turn.reason in {"cancelled", "rolled_back"}
        return by_itself or turn.bound

    def _merged(self, turn: Turn) -> None:
        host = self._control.turns.get(turn.merged_into)  # type: ignore[arg-type]
        if host is None or host.outcome != "replied":
            self._world.fail(f"{_name(turn)} was merged into what did not reply: {host}")
            return
        if turn.target not in {None, host.target}:
            self._world.fail(f"{_name(turn)} is to be told {turn.target}, not {host.target}")
        if turn.text not in (host.reply or "").split():
            self._world.fail(
                f"{_name(turn)} is answered by {host.reply!r}, which heard nothing"
            )
        record = self._records.of(host.session_id)
        above = [] if record is None else list(record.path(host.final_entry))
        asked = [
            entry for entry in above
            if (entry.get("holdfast") or {}).get("turn") == turn.turn_id
            and text_of(entry.get("message")) == turn.text
        ]  # fmt: skip
        if len(asked) != 1:
            self._world.fail(
                f"{_name(turn)} was merged into {_name(host)}, above whose final entry its"
                f" question stands {len(asked)} times"
            )

    def _failed(self, turn: Turn) -> None:
        """Not by us: whoever fails was failed by a model, or by what befell its process."""
        told = self._failures.get(turn.turn_id, set())
        befallen = self._world.storm is not None and bool(self._world.storm.struck)
        slow = turn.reason in {"max_time", "no_progress", "attempts_used_up"}
        # Its child may wait behind anybody's model that hangs.
        asks = any(child.parent == turn.turn_id for child in self._control.turns.values())
        by_model = bool(self._failures if asks else told)
        if turn.reason not in told and not befallen and not (slow and by_model):
            self._world.fail(
                f"{_name(turn)} failed, {turn.reason} ({turn.hint}): there was no storm, and"
                f" its model said {sorted(told)}"
            )

    # ------------------------------------------------------------------- holds

    def by_token(self, name: str, token: int, *, turn_id: Any, session_id: Any) -> None:
        """A transaction was made under *token*: by the lease as it stood before?"""
        if session_id is None:
            session_id = self._control.turns[turn_id].session_id
        held = self._held.get(session_id)
        if held is None or held[1] != token or turn_id not in {None, held[0]}:
            self._world.fail(
                f"{name} was made for {turn_id or session_id} under token {token}: the lease"
                f" was {held}"
            )

    def _holds(self) -> None:
        control, fail = self._control, self._world.fail
        leases = control.leases
        self._held = {each: (lease.turn_id, lease.token) for each, lease in leases.items()}
        for session_id, lease in leases.items():
            if lease.token < self._tokens[session_id]:
                fail(f"token {lease.token} of {session_id}, after {self._tokens[session_id]}")
            self._tokens[session_id] = lease.token
            turn = control.turns[lease.turn_id]
            if turn.state != _RUNNING or turn.token != lease.token:
                fail(f"{_name(turn)}, {turn.state}, token {turn.token}, has the lease {lease}")
        for turn in control.turns.values():
            if turn.state == _RUNNING:
                held = leases.get(turn.session_id)
                if held is None or held.turn_id != turn.turn_id:
                    fail(f"{_name(turn)} runs, and the lease is {held}")
        self._slots()

    def _slots(self) -> None:
        control, fail, slots = self._control, self._world.fail, self._control.slots
        used = Counter(slots.values())
        for lane, count in used.items():
            if count > self._settings.lanes[lane].concurrency:
                fail(f"{count} turns run in the lane {lane}")
        for turn_id in slots:
            if control.turns[turn_id].state != _RUNNING:
                fail(f"{_name(control.turns[turn_id])} has a slot, and does not run")

    # ------------------------------------------------------------ agents and tools

    def asked(self, prompt: Prompt, owner_id: str) -> None:
        """A model is called: has it been told what was said before?"""
        turn = self._control.turns[prompt.turn_id]  # type: ignore[index]
        said = {text_of(each) for each in prompt.history if each.get("role") == "assistant"}
        for reply in self._leased.get((turn.turn_id, owner_id), ()):
            if reply not in said:
                self._world.fail(f"{_name(turn)} is answered blind: without {reply!r}")
        told = {text_of(each) for each in prompt.history if each.get("role") == "user"}
        for other in self._rolled_back.get(turn.session_id, ()):
            if other in told:
                self._world.fail(f"{_name(turn)} is told of {other!r}, which was rolled back")

    def effect(self, prompt: Prompt, call: ToolCall) -> None:
        self._effects[call.call_id] += 1
        if call.replay == "never":
            self._for_good.add(prompt.turn_id)
        if call.replay == "never" and self._effects[call.call_id] > 1:
            self._world.fail(f"{prompt.text}: {call.call_id} ran twice, and never should")

    def failed(self, prompt: Prompt, reason: str) -> None:
        self._failures.setdefault(prompt.turn_id, set()).add(reason)


def _end(turn: Turn) -> tuple[str | None, str | None, str | None]:
    return turn.outcome, turn.reason, turn.final_entry


def _name(turn: Turn) -> str:
    return f"{turn.text!r} ({turn.lane}, {turn.policy}, admitted {turn.admission})"
