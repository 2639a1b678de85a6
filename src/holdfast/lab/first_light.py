"""
`make run`: in ten seconds, that it works.

Three processes send messages into one session at once.  One of them is killed in the middle
of an answer.  The others answer everything, what the dead one had accepted too; then the
transcript is read, and has the last word.

    python -m holdfast.lab.first_light

Nothing is staged by the clock: the kill comes when the victim's live output shows that it is
speaking, and the end when every accepted turn has its outcome.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

from holdfast import _assemble
from holdfast._core import jsonl
from holdfast.errors import NotFoundError
from holdfast.lab import oracle
from holdfast.lab.crew import GONE, Crew
from holdfast.lab.first_light_lane import KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.crew import Message
    from holdfast.lab.oracle import Facts
    from holdfast.types import Turn

__all__ = ["first_light", "main"]

VICTIM: Final = "direct"
WORDS_SPOKEN: Final = 3  #: Of at least four: it dies in the middle of its answer.
WITHIN_S: Final = 90.0  #: Far beyond ten seconds, on a machine that is busy with other things.
LOOK_S: Final = 0.05  #: Live output has no wake-up; between two words there are 100 ms.

#: Name → lane and questions.  The name is also the source.
CAST: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "channel": ("user", ("is the ferry on time?", "and the one after it?", "thank you!")),
    "direct": ("user", ("please move my booking", "to the 8:40, if you can", "window seat")),
    "heartbeat": ("heartbeat", ("anything to do?", "anything new since?")),
}


def main() -> int:
    """Exit code 0 if the transcript says that it worked."""
    print("Holdfast: three processes, one session, one of them killed in mid-sentence.")
    state = tempfile.mkdtemp(prefix="holdfast-first-light-")
    try:
        return 0 if asyncio.run(first_light(state)) else 1
    except KeyboardInterrupt:
        return 130
    except (TimeoutError, RuntimeError) as error:
        print(f"\n{_red('NOT WELL:')} {str(error) or f'no end within {WITHIN_S:g} s'}")
        print(f"State directory: {state}")
        return 1


async def first_light(state: str) -> bool:
    """Play it in *state*.  True: everything accepted was answered, exactly once."""
    said: asyncio.Queue[Message] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def told(message: Message) -> None:
        loop.call_soon_threadsafe(said.put_nowait, message)

    with Crew(told) as crew:
        for name, (lane, questions) in CAST.items():
            pid = crew.start(
                name, "holdfast.lab.first_light_lane:take_part",
                state=state, lane=lane, source=name, questions=questions,
            )  # fmt: skip
            print(f"  {name:<10} is process {pid}, lane {lane}")
        async with asyncio.timeout(WITHIN_S), _assemble.open(state) as hf:
            show = _Show(hf, crew, said)
            await show.play()
            path = hf.store.transcripts.path(await hf.session(KEY))
            crew.order("enough", *(name for name in CAST if name != VICTIM))
            await show.leave()
    return _tell(oracle.read(path), show, state, path)


class _Show:
    """Watches the store from outside, as any process may, and says what it sees."""

    def __init__(self, hf: Holdfast, crew: Crew, said: asyncio.Queue[Message]) -> None:
        self._hf, self._crew, self._said = hf, crew, said
        self._start_s = time.monotonic()
        self._ready: dict[str, str] = {}  #: Name → owner id.
        self._gone: set[str] = set()
        self.accepted: dict[str, str] = {}  #: Turn id → who was told so, by its receipt.
        self.answered_by: dict[str, str] = {}
        self._shown: dict[str, tuple[str, int | None]] = {}  #: Turn id → (state, token).
        self._killed = False

    async def play(self) -> None:
        """Until every accepted turn has its outcome, wherever it was answered."""
        wake = asyncio.Event()
        stop = self._hf.store.control.watch(wake.set)
        try:
            while not await self._over():
                try:
                    async with asyncio.timeout(LOOK_S):
                        await wake.wait()
                except TimeoutError:
                    pass
                wake.clear()
        finally:
            stop()

    async def leave(self) -> None:
        """Until the survivors have closed the store and ended."""
        while len(self._gone) < len(CAST):
            self._hear(await self._said.get())

    async def _over(self) -> bool:
        while not self._said.empty():
            self._hear(self._said.get_nowait())
        over = await self._look()
        everything = sum(len(questions) for _, questions in CAST.values())
        return over and self._killed and len(self.accepted) == everything

    def _hear(self, message: Message) -> None:
        name = message.member
        match message.kind:
            case "ready":
                self._ready[name] = str(message.facts["owner_id"])
                if len(self._ready) == len(CAST):
                    self._start_s = time.monotonic()
                    self._crew.order("go")
            case "accepted":
                self.accepted[str(message.facts["turn_id"])] = name
                self._say(name, f"asks      {message.facts['text']!r}")
            case str(kind) if kind == GONE:
                self._gone.add(name)
                if name != VICTIM and message.facts["exit_code"]:
                    raise RuntimeError(self._crew.last_words(name))

    async def _look(self) -> bool:
        """Tell what has changed in the session's turns.  True: all of them have ended."""
        try:
            session = await self._hf.session(KEY)
        except NotFoundError:
            return False
        turns = await self._hf.store.control.turns(session_id=session.session_id)
        for turn in turns:
            self._tell_turn(turn)
            if not self._killed and self._may_kill(turn):
                self._crew.kill(VICTIM)
                self._killed = True
                self._say(VICTIM, _red(f"SIGKILL   after {_spoken(self._log(turn))!r}"))
        return all(turn.ended for turn in turns)

    def _tell_turn(self, turn: Turn) -> None:
        if turn.state == "running" and not os.path.exists(self._log(turn)):
            return  # A reaper holds it, to end a dead owner's attempt; or it is not asked yet.
        before, now = self._shown.get(turn.turn_id), (turn.state, turn.token)
        if before == now:
            return
        self._shown[turn.turn_id] = now
        who = self._name(turn.owner_id)
        if turn.ended:
            by = self.answered_by.get(turn.turn_id, "?")
            self._say(by, f"{turn.outcome:<9} {_short(turn.reply)}")
        elif turn.state == "running" and who is not None:
            self.answered_by[turn.turn_id] = who
            theirs = "" if who == turn.source else f" of {turn.source}"
            self._say(who, f"{'adopts' if theirs else 'answers':<9} {turn.text!r}{theirs}")
        elif before is not None:
            self._say(turn.source, f"is dead   {turn.text!r} is back in its place")

    def _may_kill(self, turn: Turn) -> bool:
        """Everything it sends was accepted, and it is in the middle of an answer."""
        sent = sum(name == VICTIM for name in self.accepted.values())
        return (
            sent == len(CAST[VICTIM][1])
            and turn.state == "running"
            and self._name(turn.owner_id) == VICTIM
            and len(_spoken(self._log(turn)).split()) >= WORDS_SPOKEN
        )

    def _log(self, turn: Turn) -> str:
        return os.path.join(self._hf.store.where, "live", f"{turn.turn_id}.{turn.token}.ndjson")

    def _name(self, owner_id: str | None) -> str | None:
        return next((name for name, owner in self._ready.items() if owner == owner_id), None)

    def _say(self, name: str, what: str) -> None:
        print(f"  {time.monotonic() - self._start_s:5.2f} s  {name:<10} {what}", flush=True)


def _spoken(log: str) -> str:
    """What a turn's live output shows so far."""
    try:
        with open(log, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return ""
    events: list[dict[str, Any]] = [line.entry for line in jsonl.lines(data) if line.entry]
    return "".join(event["data"]["text"] for event in events if event["event"] == "text")


# --------------------------------------------------------------------------- the last word


def _tell(facts: Facts, show: _Show, state: str, path: str) -> bool:
    print("\nThe transcript, as it was read afterwards:\n")
    for n, exchange in enumerate(facts.exchanges, start=1):
        asker, by = show.accepted.get(exchange.turn, "?"), show.answered_by.get(exchange.turn)
        print(f"  {n}  {asker:<10} {exchange.text}")
        for reply in exchange.replies:
            print(f"     {'':<10} {_short(reply)}   ({'by ' + by if by else 'unknown'})")
    wrong = _wrong(facts, set(show.accepted))
    asked, answered = len(show.accepted), facts.seen
    line = f"{asked} accepted, {answered} answered, one final entry each, transcript valid"
    print(f"\n{_red('NOT WELL: ' + '; '.join(wrong)) if wrong else _green('WELL: ' + line)}\n")
    print(f"State directory: {state}\nTranscript:      {path}\n")
    print(_next_steps(state))
    return not wrong


def _wrong(facts: Facts, accepted: set[str]) -> list[str]:
    """Whatever the transcript says against what the senders were told."""
    told = {exchange.turn: exchange for exchange in facts.exchanges}
    wrong = list(facts.problems)
    wrong += [f"turn {turn} was accepted and is not there" for turn in accepted - told.keys()]
    for turn, exchange in told.items():
        if turn not in accepted:
            wrong.append(f"turn {turn} was never accepted")
        if len(exchange.replies) != 1:
            wrong.append(f"{exchange.text!r} has {len(exchange.replies)} final entries")
        elif not exchange.seen:
            wrong.append(f"the reply to {exchange.text!r} is not on the active branch")
        elif exchange.interleaved:
            wrong.append(f"another turn stands inside {exchange.text!r}")
    return wrong


def _next_steps(state: str) -> str:
    command = os.path.join(os.path.dirname(sys.executable), "holdfast")
    command = os.path.relpath(command) if os.path.exists(command) else "holdfast"
    return "\n".join(
        (
            "Try next:",
            f"  {command} send main 'hello' --store {state}",
            f"  {command} race --guard off       what happens without it",
            f"  {command} race                   the same, through it",
        )
    )


def _short(text: str | None, limit: int = 60) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _red(text: str) -> str:
    return _coloured(31, text)


def _green(text: str) -> str:
    return _coloured(32, text)


def _coloured(code: int, text: str) -> str:
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return f"\x1b[{code}m{text}\x1b[0m"
    return text


if __name__ == "__main__":
    sys.exit(main())
