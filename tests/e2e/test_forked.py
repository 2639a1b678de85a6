"""
A process forks while it has a store open: the child is told that nothing of it is its own, and
the parent loses nothing: its turns finish, its lease stays, its locks stay.

Method: real forks, of this very process, in the middle of its work.  The child reports through
its exit code and a file, has an alarm, and never returns into the event loop that it was forked
from.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast import errors
from holdfast.agents.demo import DemoAgent
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from holdfast.types import TurnId
from support import oracle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

KEY = "agent:main:main"

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_a_fork(report: Path, work: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What *work* returned in a forked child.  Blocks the event loop, as a fork does."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            signal.alarm(30)
            report.write_text(json.dumps(work()))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "the child did not come through"
    told: dict[str, str] = json.loads(report.read_text())
    return told


def use_everything(
    hf: holdfast.Holdfast, turn_id: str, more: dict[str, Callable[[], Awaitable[Any]]]
) -> dict[str, str]:
    """Call every public method there is; what came of each."""

    async def first(generator: Any) -> Any:
        return await anext(generator)

    async def enter(manager: Any) -> Any:
        return await manager.__aenter__()

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "submit": lambda: hf.submit(KEY, "from the child"),
        "turn": lambda: enter(hf.turn(KEY, "from the child")),
        "receipt": lambda: hf.receipt(turn_id),
        "cancel": lambda: hf.cancel(turn_id),
        "add_alias": lambda: hf.add_alias("agent:main:other", KEY),
        "embed": lambda: hf.embed({"main": DemoAgent()}),
        "change": hf.change,
        "drain": hf.drain,
        "dismiss": hf.dismiss,
        "close": hf.close,
        "session": lambda: hf.session(KEY),
        "transcript": lambda: hf.transcript(KEY),
        "entries": lambda: hf.entries(KEY),
        "follow": lambda: first(hf.follow(turn_id)),
        "watch": lambda: first(hf.watch(KEY)),
        "ask": lambda: hf.ask(KEY, "from the child"),
        "submit_child": lambda: hf.submit_child(KEY, "from the child", TurnId(turn_id)),
        "outcome_of": lambda: hf.outcome_of(TurnId(turn_id)),
        "reset": lambda: hf.reset(KEY),
        "handover": lambda: hf.handover(KEY),
        "find_run": lambda: hf.find_run(KEY),
        "why": lambda: hf.why(KEY),
        "has_permanent_runner": lambda: hf.has_permanent_runner("main"),
        **more,
    }

    async def all_of_them() -> dict[str, str]:
        told = {}
        for name, call in calls.items():
            try:
                async with asyncio.timeout(5):
                    await call()
            except BaseException as error:
                told[name] = type(error).__name__
            else:
                told[name] = "no error"
        return told

    return asyncio.run(all_of_them())


def test_every_public_method_is_called_in_the_child() -> None:
    """A new one must be put into `use_everything`, or here if it asks nothing of the store."""
    asks_nothing = {"draining", "took", "gave_back", "loop_delay", "session_key"}
    public = {name for name, _ in inspect.getmembers(holdfast.Holdfast) if name[0] != "_"}
    source = inspect.getsource(use_everything)
    missing = {name for name in public - asks_nothing if f'"{name}": ' not in source}
    assert not missing


async def test_a_child_can_use_nothing_and_the_parents_turn_finishes(tmp_path: Path) -> None:
    """The fork falls into the middle of a stream, of a turn of one's own, and of a wait."""
    streaming, go_on = asyncio.Event(), asyncio.Event()

    async def gate(prompt: Any, position: int) -> None:
        if position == 1:
            streaming.set()
            await go_on.wait()

    state = tmp_path / "state"
    model = ScriptedModel([Say(("a", "b"))], gate=gate)
    async with holdfast.open(state, agent=model) as hf:
        receipt = await hf.submit(KEY, "first")
        waiting = asyncio.create_task(receipt.outcome(20))
        await streaming.wait()
        async with hf.turn("agent:main:own", "mine") as turn:
            told = in_a_fork(
                tmp_path / "told",
                lambda: use_everything(
                    hf,
                    receipt.turn_id,
                    {"outcome": receipt.outcome, "reply": lambda: turn.reply("stolen")},
                ),
            )
            assert set(told.values()) == {"ForkedError"}, told
            look = await hf.store.control.look(hf.store.owner.owner_id)
            assert len(look.leases) == 2, "a lease is gone"
            await turn.reply("kept")
        go_on.set()
        assert (await waiting).text == "ab"
        assert (await (await hf.submit(KEY, "after")).outcome(20)).kind == "replied"
    for path in state.glob("agents/*/sessions/*.jsonl"):
        entries = oracle.read(path)
        oracle.check_whole(entries)
        assert "from the child" not in oracle.check_answers(entries)
        assert "stolen" not in oracle.check_answers(entries).values()


async def test_the_parents_locks_stay(tmp_path: Path) -> None:
    """The child goes, closing all it has: the write lock and the database stay the parent's."""
    path = tmp_path / "s.jsonl"
    async with holdfast.open(tmp_path / "state", agent=ScriptedModel()) as hf:
        await hf.submit(KEY, "before")
        with holdfast.WriteLock(path) as hold:
            in_a_fork(tmp_path / "told", dict)
            with pytest.raises(errors.LockTimeoutError):
                await asyncio.to_thread(holdfast.WriteLock(path, timeout_s=0.05).acquire_sync)
            hold.append(b'{"after":"the fork"}\n', sync=True)
        assert sqlite_is_locked(tmp_path / "state" / "control.db")
        await hf.submit(KEY, "after")


def sqlite_is_locked(database: Path) -> bool:
    """
    Whether this process holds SQLite's shared lock.  Asked by another process: asking
    ourselves would drop it (POSIX locks go with any descriptor of the file).
    """
    ask = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "try:\n"
        "    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)\n"
        "except OSError:\n"
        "    print('locked')\n"
    )
    command = [sys.executable, "-c", ask, str(database)]
    return (
        "locked" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    )


async def test_multiprocessings_fork_is_told_the_same(tmp_path: Path) -> None:
    async with holdfast.open(tmp_path / "state", agent=ScriptedModel()) as hf:
        receipt = await hf.submit(KEY, "first")
        await receipt.outcome(20)
        context = multiprocessing.get_context("fork")
        queue: Any = context.SimpleQueue()

        def work() -> None:
            signal.alarm(30)
            queue.put(use_everything(hf, receipt.turn_id, {}))

        process = context.Process(target=work)
        process.start()
        told = await asyncio.to_thread(queue.get)
        process.join()
        assert process.exitcode == 0
        assert set(told.values()) == {"ForkedError"}, told
        assert (await (await hf.submit(KEY, "after")).outcome(20)).kind == "replied"


async def test_a_child_that_opens_the_same_store_is_refused(tmp_path: Path) -> None:
    """
    SQLite would let it in, on locks that only the parent has.  When the parent closes, the
    write-ahead log is deleted under the child, and what it accepts from then on is lost.
    """

    def open_it() -> dict[str, str]:
        async def submit() -> None:
            async with holdfast.open(tmp_path / "state") as own:
                await own.submit(KEY, "accepted, and then?")

        try:
            asyncio.run(submit())
        except errors.ForkedError as error:
            return {"refused": error.hint or ""}
        return {}

    async with holdfast.open(tmp_path / "state") as hf:
        await hf.submit(KEY, "zero")
        told = in_a_fork(tmp_path / "told", open_it)
        assert "spawn" in told["refused"]
        again = in_a_fork(tmp_path / "told", lambda: in_a_fork(tmp_path / "deeper", open_it))
        assert "refused" in again, "a grandchild was let in"
        turns = await hf.store.control.turns()
        assert [turn.text for turn in turns] == ["zero"]


async def test_a_child_forked_before_or_after_opens_its_own(tmp_path: Path) -> None:
    """What is refused is what was open at the fork, and nothing else."""
    state = tmp_path / "state"

    def open_it() -> dict[str, str]:
        async def submit() -> dict[str, str]:
            async with holdfast.open(state, agent=DemoAgent()) as own:
                return {"kind": (await (await own.submit(KEY, "hello")).outcome(20)).kind}

        return asyncio.run(submit())

    async with holdfast.open(state) as hf:
        await hf.submit(KEY, "zero")
    assert in_a_fork(tmp_path / "told", open_it) == {"kind": "replied"}
    async with holdfast.open(state) as hf:
        assert [t.outcome for t in await hf.store.control.turns()] == ["replied", "replied"]


async def test_a_spawned_process_opens_its_own_while_the_parent_has_it_open(
    tmp_path: Path,
) -> None:
    """What the error advises works."""
    async with holdfast.open(tmp_path / "state", agent=ScriptedModel()) as hf:
        command = [
            sys.executable,
            "-m",
            "holdfast",
            "send",
            KEY,
            "hello",
            "--store",
            tmp_path / "state",
        ]
        sent = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        assert sent.stdout.strip() == "reply to: hello"
        assert (await (await hf.submit(KEY, "after")).outcome(20)).kind == "replied"


async def test_leaving_the_block_in_a_child_takes_nothing_from_the_parent(
    tmp_path: Path,
) -> None:
    """An exception carries the child out of `async with holdfast.open(…)`."""

    def leave() -> dict[str, str]:
        exiting = hf.__aexit__(None, None, None)
        try:
            exiting.send(None)
        except StopIteration:
            return {"left": "quietly"}
        return {}

    async with holdfast.open(tmp_path / "state", agent=ScriptedModel()) as hf:
        assert in_a_fork(tmp_path / "told", leave) == {"left": "quietly"}
        assert (await (await hf.submit(KEY, "after")).outcome(20)).kind == "replied"
