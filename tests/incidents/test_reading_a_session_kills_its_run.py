"""
Reading a session killed its run (issue #84542).

What happened there: listing or opening a session repaired and migrated its file, or touched
it; the run that streamed at that moment found another fingerprint and dropped its reply.

What happens here: whoever only reads takes no lock, writes no row and changes no byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

import holdfast
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Say
from support import oracle
from support.incident import KEY, Gate

COMMANDS = (
    ("sessions", "list"),
    ("sessions", "show", KEY),
    ("sessions", "tail", KEY),
    ("sessions", "export", KEY),
    ("doctor",),
)


async def command(state: Path, *words: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast", *words,
        env={**os.environ, "HOLDFAST_STORE": str(state)},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    return await asyncio.wait_for(process.wait(), 60)


def of(path: Path) -> tuple[str, int, int, list[str]]:
    stat = path.stat()
    names = sorted(os.listdir(path.parent))
    return hashlib.sha256(path.read_bytes()).hexdigest(), stat.st_mtime_ns, stat.st_ino, names


async def test_whoever_looks_the_run_that_streams_is_not_disturbed(tmp_path: Path) -> None:
    gate = Gate()
    model = ScriptedModel([Say(("x",))], [Say(("the ", "reply"))], gate=gate)
    async with holdfast.open(tmp_path, agent=model) as hf:
        await (await hf.submit(KEY, "first")).outcome(20)
        receipt = await hf.submit(KEY, "second")
        await gate.reached.wait()
        path = oracle.only_transcript(tmp_path)
        before = of(path)
        codes = await asyncio.gather(*(command(tmp_path, *words) for words in COMMANDS))
        assert len((await hf.transcript(KEY)).history()) == 3
        assert of(path) == before
        gate.opened.set()
        outcome = await receipt.outcome(20)
    assert codes[:4] == [0] * 4, dict(zip(COMMANDS, codes, strict=True))
    assert (outcome.text, outcome.attempts) == ("the reply", 1)
    assert len(model.prompts) == 2
    assert not [e for e in oracle.read(path) if "rebased" in e.get("holdfast", {})]


async def test_a_torn_line_is_not_mended_by_who_reads_it(tmp_path: Path) -> None:
    """The founding reader repaired what it found, in the middle of somebody's window."""
    path = tmp_path / "talk.jsonl"
    async with holdfast.Attempt(path) as attempt:
        await attempt.append({"role": "user", "content": "q"})
        async with attempt.prompt_window() as window:
            with path.open("ab") as file:
                file.write(b'{"type":"message","id":"half')
            before = of(path)
            assert await command(tmp_path, "sessions", "verify", str(path)) in {0, 1}
            assert of(path) == before
        assert window.entries == ()
        await attempt.append({"role": "assistant", "content": "r"})
    lines = path.read_bytes().split(b"\n")
    assert lines[2] == b'{"type":"message","id":"half', "the torn line is gone"
    assert b'"r"' in lines[3]
