"""
Who blocks whom, and what will happen next: one session, explained.

Input is what the rows say (`Why`) and what stands around them (`Around`).  The promise has
conditions: the store can be written, a runner is alive, no stranger removes our claims, a
frozen holder is continued or killed.  `broken` names each that does not hold; as long as one
that stands in the way does not, the state is `blocked` and `next` says that nothing will
happen by itself.  Ages are asked for, no clock is read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from holdfast._core import words

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from holdfast._core.settings import Settings
    from holdfast.types import Around, Holder, Owed, Place, Waiting, Why

__all__ = ["STATES", "Broken", "Explained"]

#: blocked: nothing moves until somebody does something.  recovering: an attempt is being
#: ended for its owner.  ending: the running turn was asked to end.
STATES: Final = ("blocked", "recovering", "ending", "running", "waiting", "delivering", "idle")

START_ONE: Final = "start one: holdfast serve"


@dataclass(frozen=True, slots=True)
class Broken:
    """A condition of the promise that does not hold."""

    condition: str  #: store | frozen | owner | runner | channel | claims | write_lock
    detail: str
    do: str
    blocks: bool = True  #: Whether this session waits for it now.


class Explained:
    """
    One session in words.

    Args:
        key: as it was asked for.
        age_ms: how long ago a moment (RFC 3339) was.
        channels: that the process which asks has open, beside those of *settings*.
    """

    def __init__(
        self,
        key: str,
        why: Why,
        around: Around,
        settings: Settings,
        age_ms: Callable[[str], int],
        channels: Collection[str] = (),
    ) -> None:
        self._key, self._why, self._around = key, why, around
        self._settings, self._age_ms, self._channels = settings, age_ms, channels
        self.alive = [
            (owner, permanent)
            for owner, permanent in why.runners
            if around.lives.get(owner.owner_id) not in {"dead", "stopped"}
        ]
        self.waiting = [self._seen(each) for each in why.waiting]
        self.broken = tuple(self._broken())
        self.state = self._state()
        self.next = self._next()

    # ---------------------------------------------------------------------- waiting, holder

    def _seen(self, waiting: Waiting) -> Waiting:
        """A runner that has died stands in the rows until it is buried: look through it."""
        turn, place = waiting.turn, waiting.place
        if turn.bound or self.alive or place.waiting_for == "merge":
            return waiting
        return replace(waiting, place=replace(place, waiting_for="no_runner"))

    def reason(self, place: Place) -> str:
        told = words.reason(
            place,
            age_ms=None if place.since is None else self._age_ms(place.since),
            agent=self._why.session.agent_id,
            lanes=self._settings.lanes,
        )
        return told or "nothing is in its way: it starts at once"

    @property
    def life(self) -> str | None:
        """Of the holder's process: alive, stopped, dead, gone, unknown; None: no holder."""
        holder = self._why.holder
        if holder is None:
            return None
        if holder.owner is None:
            return "gone"
        return self._around.lives.get(holder.owner.owner_id, "unknown")

    # ----------------------------------------------------------------------------- broken

    def _broken(self) -> list[Broken]:
        why, around, found = self._why, self._around, list[Broken]()
        if around.blocked:
            found.append(Broken("store", around.blocked, "continue that process, or kill it"))
        if around.transcript:
            do = "put the transcript back from a backup"
            found.append(Broken("store", around.transcript, do))
        if self.life == "stopped" and why.holder is not None and why.holder.owner is not None:
            pid = why.holder.owner.pid
            detail = f"pid {pid}, which runs a turn of this session, is stopped"
            do = f"continue it: kill -CONT {pid}; {self._frozen_rule()}"
            found.append(Broken("frozen", detail, do, blocks=False))
        if self.life in {"dead", "gone"} and why.holder is not None:
            owner = why.holder.owner
            who = "its process" if owner is None else f"pid {owner.pid}"
            detail = f"{who}, which ran turn {why.holder.turn.turn_id}, is dead, not yet buried"
            do = "any living process of this store does that within a second or two"
            found.append(Broken("owner", detail, do, blocks=False))
        found.extend(self._about_lock())
        unbound = any(not each.turn.bound for each in why.waiting)
        if not self.alive:
            detail = f"no runner for agent {why.session.agent_id} is alive"
            stands = why.holder is None or self.life in {"dead", "gone", "stopped"}
            blocks = stands and (unbound or why.holder is not None)
            found.append(Broken("runner", detail, START_ONE, blocks=blocks))
        names = {each.target.partition(":")[0] for each in why.deliveries}
        for name in sorted(each for each in names if not self._is_open(each)):
            detail = f"channel {name}, which replies are owed to, is not in the settings"
            do = "configure it where they are sent from; or holdfast deliveries drop"
            found.append(Broken("channel", detail, do, blocks=False))
        return found

    def _about_lock(self) -> list[Broken]:
        lock = self._around.lock
        if lock is None:
            return []
        pid = lock["holder"]["pid"]
        found = []
        if lock["claim"] is None:
            detail = f"pid {pid} has the transcript, and its claim beside it was removed"
            do = "find who removes lock files; writers that know only those are not kept out"
            found.append(Broken("claims", detail, do, blocks=False))
        if lock["holder"].get("stopped"):
            detail = f"pid {pid} is stopped and has the transcript's write lock"
            do = f"continue it: kill -CONT {pid}; {self._frozen_rule()}"
            found.append(Broken("frozen", detail, do))
        elif lock["verdict"] == "report":
            detail = f"pid {pid} has had the transcript's write lock for too long"
            do = f"see holdfast locks show {lock['path']}; nothing is removed by age"
            found.append(Broken("write_lock", detail, do))
        return found

    def _frozen_rule(self) -> str:
        if self._settings.frozen_holder == "kill":
            return f"or it is killed after {words.duration(self._settings.frozen_kill_ms)}"
        return "it is not killed (recovery.frozen_holder = report)"

    # -------------------------------------------------------------------------------- state

    def _state(self) -> str:
        why = self._why
        busy = why.holder is not None or why.waiting_count > 0
        if busy and any(each.blocks for each in self.broken):
            return "blocked"
        if why.holder is not None:
            if why.holder.recovering or self.life in {"dead", "gone", "stopped"}:
                return "recovering"
            return "ending" if why.holder.turn.abort_requested else "running"
        if why.waiting_count:
            return "waiting"
        return "delivering" if why.owed else "idle"

    # --------------------------------------------------------------------------------- next

    def _next(self) -> str:
        if self.state == "blocked":
            blocking = next(each for each in self.broken if each.blocks)
            return f"nothing, by itself: {blocking.detail}; {blocking.do}"
        holder = self._why.holder
        if holder is not None:
            return f"{self._end_of(holder)}; then {self._after()}"
        if self.state == "waiting":
            return self._start()
        if self.state == "delivering":
            return self._delivery(self._why.deliveries[0])
        if not self.alive:
            return "the next message is accepted, and waits until a runner is started"
        return "nothing waits; the next message starts at once"

    def _end_of(self, holder: Holder) -> str:
        if self.state == "recovering":
            return self._recovering(holder)
        if self.state == "ending":
            return self._ending(holder)
        turn = words.short(holder.turn.turn_id)
        return f"the {holder.turn.lane} turn {turn} runs to its end"

    def _recovering(self, holder: Holder) -> str:
        own = f"turn {words.short(holder.turn.turn_id)}"
        if holder.recovering:
            return f"{own} is being ended for its owner: booked, or back to its place"
        if self.life == "stopped":
            lease = words.duration(self._settings.lease_ms)
            return f"{own} is taken from its stopped process once that is silent for {lease}"
        return f"{own} is taken from its dead process by a living one within a second or two"

    def _ending(self, holder: Holder) -> str:
        settle = words.duration(self._settings.settle_ms)
        asked = (holder.turn.abort_reason or "cancelled").replace("_", " ")
        return (
            f"the running turn was asked to end ({asked}): it does, or is fenced after {settle}"
        )

    def _after(self) -> str:
        first = next((each for each in self.waiting if each.turn.host is None), None)
        if first is None:
            return "nothing waits"
        own = f"the {first.turn.lane} turn {words.short(first.turn.turn_id)}"
        if first.place.waiting_for == "no_runner":
            return f"{own} waits for a runner; {START_ONE}"
        return f"{own} is the next one"

    def _start(self) -> str:
        first = next((each for each in self.waiting if each.turn.host is None), None)
        if first is None:
            return "the turns that wait were merged into one that is starting"
        turn = first.turn
        own = f"the {turn.lane} turn {words.short(turn.turn_id)} starts"
        match first.place.waiting_for:
            case None:
                return f"{own} now"
            case "slot":
                lane = first.place.lane or turn.lane
                return f"{own} when a turn of lane {lane} ends and gives its slot back"
            case "no_runner":
                return f"{own} when a runner for agent {turn.agent_id} is alive; {START_ONE}"
            case _:
                left_ms = first.place.left_ms
                when = f"in {words.duration(left_ms)}" if left_ms else "when it can"
                return f"{own} {when}: {self.reason(first.place)}"

    def _delivery(self, owed: Owed) -> str:
        told = f"part {owed.part} of {owed.parts} for {owed.target}: {self._handing(owed)}"
        channel = owed.target.partition(":")[0]
        if not self._is_open(channel):
            return f"{told}, if a process has channel {channel}: the settings do not"
        if self.alive or self._life_of(owed) in {"alive", "unknown"}:
            return told
        return f"{told}, once a process with channel {channel} runs"

    def _handing(self, owed: Owed) -> str:
        return words.delivery(owed, self._life_of(owed))

    def _life_of(self, owed: Owed) -> str:
        """Of who attempts it."""
        return "" if owed.owner_id is None else self._around.lives.get(owed.owner_id, "unknown")

    def _is_open(self, channel: str) -> bool:
        told = self._settings.channels.get(channel)
        return channel in self._channels or (told is not None and told.url is not None)

    # --------------------------------------------------------------------------------- JSON

    def to_json(self) -> dict[str, Any]:
        why = self._why
        return {
            "session": self._key,
            "session_id": why.session.session_id,
            "keys": list(why.keys),
            "agent": why.session.agent_id,
            "state": self.state,
            "holder": None if why.holder is None else self._holder_json(why.holder),
            "waiting": [self._waiting_json(each) for each in self.waiting],
            "waiting_count": why.waiting_count,
            "next": self.next,
            "write_lock": self._around.lock,
            "runners": [
                {
                    "pid": owner.pid,
                    "host": owner.host,
                    "life": self._around.lives.get(owner.owner_id, "unknown"),
                    "permanent": permanent,
                }
                for owner, permanent in why.runners
            ],
            "owed": why.owed,
            "deliveries": [self._owed_json(each) for each in why.deliveries],
            "broken": [asdict(each) for each in self.broken],
        }

    def _holder_json(self, holder: Holder) -> dict[str, Any]:
        turn, owner = holder.turn, holder.owner
        return {
            "turn_id": turn.turn_id,
            "lane": turn.lane,
            "source": turn.source,
            "attempts": turn.attempts,
            "since": holder.since,
            "age_ms": self._age_ms(holder.since),
            "token": holder.token,
            "effective": holder.effective,
            "recovering": holder.recovering,
            "abort_requested": turn.abort_requested,
            "abort_reason": turn.abort_reason,
            "waits_for": turn.waits_for,
            "pid": None if owner is None else owner.pid,
            "host": None if owner is None else owner.host,
            "life": self.life,
            "progress": dict(holder.progress),
        }

    def _waiting_json(self, waiting: Waiting) -> dict[str, Any]:
        turn, place = waiting.turn, waiting.place
        return {
            "turn_id": turn.turn_id,
            "lane": turn.lane,
            "position": place.position,
            "waiting_for": place.waiting_for,
            "reason": self.reason(place),
            "since": turn.accepted_at,
            "blocker": place.blocker,
            "host": turn.host,
        }

    def _owed_json(self, owed: Owed) -> dict[str, Any]:
        told: Mapping[str, Any] = asdict(owed)
        return {**told, "waits": self._handing(owed)}
