"""
SIGKILL storms: of the write lock alone, and of whole turns.

    python -m support.storm lock  [--kills N | --seconds S] [--seed N] [--where DIR]
    python -m support.storm turns …

Prints its progress, and one final line of JSON; exit code 1 if anything was lost, torn,
doubled or blocked, naming it, and the seed.

Method: this process has one thread and nothing open, so a worker is a fork: a few
milliseconds each.  Workers never end by themselves.  Each is born with its death: at a random
system call about files, before or after it took effect, or at a random named point; and now
and then one of the living is killed from outside, at no particular moment.  What a worker was
told is done it notes in memory that is shared with us, which its death does not take away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import holdfast
import holdfast._runtime.runtime
import holdfast.backends.files.store
from holdfast import _points
from holdfast.agents.demo import DemoAgent
from holdfast.backends.files import fs
from holdfast.backends.files.lock.write_lock import WriteLock
from support import oracle
from support.rows import every_turn

PROCESSES: Final = 8
STUCK_S: Final = 60.0  #: Nobody has got anything done for so long: somebody blocks.
SAY_EVERY_S: Final = 5.0


class Wrong(AssertionError):
    """What the storm has shown to be untrue."""


class Board:
    """Numbers that outlive who wrote them: one for each worker, and whether to stop."""

    def __init__(self, most: int) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 8 * (most + 1))).cast("q")
        self.most = most

    def done(self, serial: int, count: int) -> None:
        self._numbers[serial] = count

    def count(self, serial: int) -> int:
        return self._numbers[serial]

    def total(self) -> int:
        return sum(self._numbers[: self.most])

    @property
    def stopping(self) -> bool:
        return self._numbers[self.most] == 1

    def stop(self) -> None:
        self._numbers[self.most] = 1


class Storm:
    """
    Keeps PROCESSES workers alive while they are killed.

    Args:
        work: what a worker does, given its number and its chance; ends when told to stop.
        each_ms: how often, about, one of them is killed from outside.
    """

    def __init__(
        self, work: Any, board: Board, *, name: str, seed: int, each_ms: float
    ) -> None:
        self._each_ms = each_ms
        self._work, self._board, self._name = work, board, name
        self._rng, self._seed = Random(seed), seed
        self._alive: dict[int, int] = {}  #: pid → serial.
        self.born = self.kills = 0
        self.killed: set[int] = set()

    def blow(self, *, kills: int, seconds: float) -> None:
        """Until so many are dead, or so much time has passed, whichever is later."""
        assert threading.active_count() == 1, "a fork would copy half of what threads do"
        until_s = time.monotonic() + seconds
        said_s = moved_s = time.monotonic()
        done = -1
        try:
            while self.kills < kills or time.monotonic() < until_s:
                while len(self._alive) < PROCESSES and self.born < self._board.most:
                    self._bear()
                time.sleep(self._rng.random() * 0.002)  # The moment of a blow is chance.
                if self._rng.random() * self._each_ms < 1:
                    os.kill(self._rng.choice(list(self._alive)), signal.SIGKILL)
                self._bury()
                now_s = time.monotonic()
                if (count := self._board.total() + self.kills) != done:
                    done, moved_s = count, now_s
                if now_s - moved_s > STUCK_S:
                    raise Wrong(f"nobody has got anything done for {STUCK_S:g} s")
                if now_s - said_s > SAY_EVERY_S:
                    said_s = now_s
                    self.say()
                if self.born == self._board.most and not self._alive:
                    break
            self._board.stop()
            self._see_them_out()
        finally:
            for pid in self._alive:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def say(self) -> None:
        done = self._board.total()
        print(f"{self._name} seed {self._seed}: {self.kills} kills, {done} done", flush=True)

    def _bear(self) -> None:
        serial = self.born
        self.born += 1
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._work(serial, Random(f"{self._seed} {serial}"))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self._alive[pid] = serial

    def _bury(self, *, wait: bool = False) -> None:
        while self._alive:
            pid, status = os.waitpid(-1, 0 if wait else os.WNOHANG)
            if pid == 0:
                return
            serial, code = self._alive.pop(pid), os.waitstatus_to_exitcode(status)
            if code == -signal.SIGKILL:
                self.kills += 1
                self.killed.add(serial)
            elif code or not self._board.stopping:
                raise Wrong(f"worker {serial} ended by itself, exit code {code}")

    def _see_them_out(self) -> None:
        until_s = time.monotonic() + STUCK_S
        while self._alive:
            if time.monotonic() > until_s:
                raise Wrong(f"workers {sorted(self._alive.values())} did not end when told")
            self._bury()
            time.sleep(0.001)


# ------------------------------------------------------------------------ the write lock


def die_at_call(number: int, how: str) -> None:
    """
    Die at the *number*-th system call about files.

    *how*: ``before`` or ``after`` it; ``within``: in the middle of the next write.
    """
    real, calls = fs.table, 0

    class Table:
        def __getattr__(self, name: str) -> Any:
            call = getattr(real, name)
            if name in {"monotonic", "time_ns", "sleep"}:
                return call

            def counted(*args: Any, **kwargs: Any) -> Any:
                nonlocal calls
                calls += 1
                if how == "within" and calls >= number and name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                if how == "before" and calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = call(*args, **kwargs)
                if how == "after" and calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return counted

    fs.table = Table()  # type: ignore[assignment]


def line_of(serial: int, number: int) -> bytes:
    """One in eight is longer than a page, in case that matters to somebody's reading."""
    pad = "x" * (9000 if (serial + number) % 8 == 0 else number % 50)
    return json.dumps({"by": serial, "n": number, "pad": pad}).encode() + b"\n"


def lock_storm(where: Path, *, kills: int, seconds: float, seed: int) -> dict[str, int]:
    """Eight processes append under the write lock, by several names of one file."""
    path = where / "s.jsonl"
    path.write_bytes(b"")
    names = [path, where / "symlink.jsonl", where / "hard.jsonl"]
    names[1].symlink_to(path)
    names[2].hardlink_to(path)
    board = Board(max(kills, int(seconds * 200)) * 2 + 100)

    def work(serial: int, rng: Random) -> None:
        die_at_call(rng.randint(1, 2500), rng.choice(["before", "after", "within"]))
        lock = WriteLock(rng.choice(names), timeout_s=STUCK_S, lane="storm")
        number = 0
        while not board.stopping:
            with lock as hold:
                hold.append(line_of(serial, number + 1), sync=rng.random() < 0.05)
            number += 1
            board.done(serial, number)

    storm = Storm(work, board, name="lock", seed=seed, each_ms=25)
    storm.blow(kills=kills, seconds=seconds)
    storm.say()
    counts = check_lines(path.read_bytes(), board, storm)
    # No claim blocks: by each name, at the first look.
    for name in names:
        with WriteLock(name, timeout_s=0) as hold:
            hold.append(b"{}\n", sync=False)
    if left := [each.name for each in where.iterdir() if each.name.endswith(".lock")]:
        raise Wrong(f"claims were left: {left}")
    return {"kills": storm.kills, **counts}


def check_lines(data: bytes, board: Board, storm: Storm) -> dict[str, int]:
    """
    Every acknowledged line stands once, in its writer's order.  Beyond them a killed writer
    may have left its next line, whole or torn, and nothing else.
    """
    found: Counter[int] = Counter()
    torn: Counter[int] = Counter()
    unacknowledged = 0
    for raw in data.split(b"\n")[:-1] if data.endswith(b"\n") else data.split(b"\n"):
        try:
            entry = json.loads(raw)
        except ValueError:
            torn[whose(raw, board, storm)] += 1
            continue
        serial, number = entry["by"], entry["n"]
        if raw + b"\n" != line_of(serial, number):
            raise Wrong(f"another line than {serial} wrote as its {number}th")
        found[serial] += 1
        if number != found[serial]:
            raise Wrong(f"line {number} of {serial} stands where {found[serial]} should")
    for serial in range(storm.born):
        told, stands = board.count(serial), found[serial]
        if stands < told:
            raise Wrong(f"{told - stands} acknowledged lines of {serial} are lost")
        beyond = stands - told + torn[serial]
        if beyond > (serial in storm.killed):
            raise Wrong(f"{serial} has {beyond} lines more than it was told of")
        unacknowledged += stands - told
    return {
        "lines": sum(found.values()),
        "acknowledged": board.total(),
        "unacknowledged": unacknowledged,
        "torn": sum(torn.values()),
    }


def whose(raw: bytes, board: Board, storm: Storm) -> int:
    """Which killed writer's next line *raw* is the beginning of."""
    for serial in storm.killed:
        if raw and line_of(serial, board.count(serial) + 1).startswith(raw):
            return serial
    raise Wrong(f"a torn line that no killed writer was writing: {raw[:80]!r}")


# ------------------------------------------------------------------------------ the turns

KEYS: Final = ["agent:main:one", "agent:main:two", "agent:main:three"]
SETTINGS: Final = {
    "turn.lease_ms": 2000,
    "abort.settle_ms": 500,
    "turn.max_attempts": 1000,
    "turn.queue_max": 100_000,
}


def turn_storm(where: Path, *, kills: int, seconds: float, seed: int) -> dict[str, int]:
    """Eight runners that also send; the acknowledged are those whose receipt came back."""
    state, notes = where / "state", where / "notes"
    notes.mkdir()
    board = Board(max(kills, int(seconds * 50)) * 2 + 100)

    def work(serial: int, rng: Random) -> None:
        die_at_point(rng)

        async def lead() -> None:
            fd = os.open(notes / str(serial), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            async with holdfast.open(
                state, agent=DemoAgent(delay_s=0), settings=SETTINGS
            ) as hf:
                number = 0
                while not board.stopping:
                    text = f"{serial} {number}"
                    receipt = await hf.submit(rng.choice(KEYS), text, idempotency_key=text)
                    note(fd, accepted=receipt.turn_id)
                    outcome = await receipt.outcome(STUCK_S)
                    note(fd, turn=receipt.turn_id, kind=outcome.kind, reply=outcome.text)
                    number += 1
                    board.done(serial, number)

        asyncio.run(lead())

    storm = Storm(work, board, name="turns", seed=seed, each_ms=80)
    storm.blow(kills=kills, seconds=seconds)
    storm.say()
    counts = check_turns(state, notes)
    return {"kills": storm.kills, **counts}


def die_at_point(rng: Random) -> None:
    """At a random point of a random turn; points that many pass are met soon enough."""
    point = rng.choice(
        sorted(p for p in _points.POINTS if not p.startswith(("replace.", "delete.")))
    )
    hits = rng.randint(1, 60 if point.startswith("control.") else 12)

    def reached() -> None:
        nonlocal hits
        hits -= 1
        if not hits:
            os.kill(os.getpid(), signal.SIGKILL)

    _points.install(point, reached)


def note(fd: int, **facts: Any) -> None:
    os.write(fd, json.dumps(facts).encode() + b"\n")


def check_turns(state: Path, notes: Path) -> dict[str, int]:
    """Accepted is answered, once, and by what every sender was told."""

    async def finish() -> None:
        async with holdfast.open(state, agent=DemoAgent(delay_s=0), settings=SETTINGS) as hf:
            turns: list[Any] = []
            while page := await hf.store.control.turns(
                after=turns[-1].admission if turns else 0
            ):
                turns += page
            for turn in turns:
                await (await hf.receipt(turn.turn_id)).outcome(STUCK_S)

    asyncio.run(finish())
    turns = {turn.turn_id: turn for turn in every_turn(state)}
    if bad := [turn for turn in turns.values() if turn.outcome != "replied"]:
        raise Wrong(f"{len(bad)} turns ended as {bad[0].outcome}: {bad[0].reason}")
    replies: dict[str, str] = {}
    for path in state.glob("agents/*/sessions/*.jsonl"):
        lines = [line for line in path.read_bytes().split(b"\n") if line]
        entries = [entry for line in lines[1:] if (entry := parsed(line)) is not None]
        oracle.check_whole(entries)
        oracle.check_answers(entries)
        for final in oracle.finals(entries):
            replies[final["holdfast"]["turn"]] = oracle.text_of(final)
        asked = Counter(
            entry["holdfast"]["turn"]
            for entry in entries
            if entry["type"] == "message" and entry["message"]["role"] == "user"
        )
        if doubled := [turn for turn, count in asked.items() if count > 1]:
            raise Wrong(f"the question of {doubled[0]} stands twice")
    if replies.keys() != turns.keys():
        raise Wrong(f"{len(turns)} turns were accepted, {len(replies)} replies stand")
    told = [
        json.loads(line)
        for path in notes.iterdir()
        for line in path.read_text().split("\n")
        if line
    ]
    for fact in told:
        if fact.get("accepted", fact.get("turn")) not in turns:
            raise Wrong(f"accepted, and gone: {fact}")
        if "kind" in fact and (fact["kind"], fact["reply"]) != (
            "replied",
            replies[fact["turn"]],
        ):
            raise Wrong(f"another answer was told than stands: {fact}")
    return {"turns": len(turns), "told": sum("kind" in fact for fact in told)}


def parsed(line: bytes) -> dict[str, Any] | None:
    """None: a line that a killed writer tore, or the header is at fault elsewhere."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


STORMS: Final = {"lock": lock_storm, "turns": turn_storm}


ROUND_S: Final = 30.0  #: Then all is looked through, and the next storm begins on nothing.


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 2)[1])
    parser.add_argument("storm", choices=[*STORMS, "all"])
    parser.add_argument("--kills", type=int, default=0, help="at least so many, in one round")
    parser.add_argument("--seconds", type=float, default=0, help="in rounds of 30")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--where", type=Path)
    asked = parser.parse_args(argv)
    names = list(STORMS) if asked.storm == "all" else [asked.storm]
    sums: Counter[str] = Counter()
    until_s, rounds = time.monotonic() + asked.seconds, 0
    while not rounds or rounds % len(names) or time.monotonic() < until_s:
        name, seed = names[rounds % len(names)], asked.seed + rounds
        left_s = max(until_s - time.monotonic(), 0)
        with tempfile.TemporaryDirectory(prefix="storm-", dir=asked.where) as made:
            try:
                told = STORMS[name](
                    Path(made), kills=asked.kills, seconds=min(left_s, ROUND_S), seed=seed
                )
            except (Wrong, AssertionError) as wrong:
                print(json.dumps({"storm": name, "seed": seed, "wrong": str(wrong)}))
                return 1
        rounds += 1
        sums.update(told)
    print(json.dumps({"storm": asked.storm, "seed": asked.seed, "rounds": rounds, **sums}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
