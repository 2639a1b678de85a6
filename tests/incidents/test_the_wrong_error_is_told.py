"""
The wrong error was told (PR #82891's finally, PR #89811, issue #152659's shape).

What happened there: what failed on the way out replaced what had happened.  A takeover found
while cleaning up after a provider's failure changed that error's name, so no other model was
asked; an exception in taking the lock back threw a finished reply away; and with a takeover
after a success, "All models failed" hid the one line that would have helped.

What happens here: the first cause is raised, what follows is an echo in the log, and no echo
replaces a result.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

import holdfast
from holdfast.backends.files import fs
from holdfast.errors import LockWaitError, ProviderError, TakeoverError
from holdfast.testing import ScriptedModel
from holdfast.testing.scripted import Fail, Say
from holdfast.types import Prompt
from support import oracle
from support.incident import KEY, nobody_is_blocked, said, texts

ONE = {"turn.max_attempts": 1}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


async def test_a_providers_failure_is_told_though_the_lock_was_busy_or_the_file_rewritten(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for echo in ("busy", "rewritten"):
        caplog.clear()
        async with holdfast.Attempt(path, timeout_s=0.05) as attempt:
            await attempt.append(said("q", "user"))
            with caplog.at_level(logging.INFO), pytest.raises(ProviderError) as caught:
                async with attempt.prompt_window():
                    if echo == "busy":
                        hold = holdfast.WriteLock(path).acquire()
                        held = await hold
                    else:
                        path.write_bytes(b'{"type":"session","version":3,"id":"s"}\n')
                    raise ProviderError(reason="server_error", detail="overloaded")
            assert caught.value.reason == "server_error"
            if echo == "busy":
                held.release()
            assert "overloaded" in caplog.text, "the echo is not told at all"
        await nobody_is_blocked(path)


async def test_a_failed_turn_says_what_the_provider_said(tmp_path: Path) -> None:
    """Rewritten in the very window in which the provider refuses: once, and then for good."""

    async def rewrite(prompt: Prompt, position: int) -> None:
        path = oracle.only_transcript(tmp_path)
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])

    refused = Fail(ProviderError(reason="auth", detail="no key"), tokens=("x",))
    model = ScriptedModel([refused], [refused], gate=rewrite)
    async with holdfast.open(tmp_path, agent=model, settings=ONE) as hf:
        outcome = await (await hf.submit(KEY, "hello")).outcome(20)
    assert (outcome.kind, outcome.reason) == ("failed", "auth")
    assert "no key" in (outcome.hint or "")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The next claims cannot be removed.  Which ones; what stays is row @L's."""
    real = fs.table.unlink
    failed: list[str] = []

    def unlink(where: str) -> None:
        if where.endswith(".lock") and len(failed) < 4:
            failed.append(where)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(where)

    monkeypatch.setattr(fs.table, "unlink", unlink)
    return failed


async def test_a_write_that_was_done_is_not_called_failed_by_its_release(
    path: Path, failing: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with holdfast.Attempt(path) as attempt:
        await attempt.append(said("the reply"))
    assert failing
    assert "Input/output error" in caplog.text, "swallowed"
    assert texts(path) == ["the reply"]
    failing += [""] * 4
    await nobody_is_blocked(path)


async def test_a_finished_reply_is_not_lost_by_what_fails_while_giving_the_lock_back(
    tmp_path: Path, failing: list[str]
) -> None:
    model = ScriptedModel([Say(("the ", "reply"))])
    async with holdfast.open(tmp_path, agent=model, settings=ONE) as hf:
        outcome = await (await hf.submit(KEY, "hello")).outcome(20)
        assert (outcome.kind, outcome.text) == ("replied", "the reply")
        assert failing, "nothing has failed"
        assert (await (await hf.submit(KEY, "next")).outcome(20)).kind == "replied"
    assert len(model.prompts) == 2


async def test_a_takeover_is_told_as_one_and_contention_as_contention(path: Path) -> None:
    """Not the other way round: a takeover is final, contention may be tried again."""
    async with holdfast.Attempt(path, timeout_s=0.05) as attempt:
        with pytest.raises(LockWaitError):
            async with attempt.prompt_window():
                held = await holdfast.WriteLock(path).acquire()
        held.release()
        await attempt.append(said("the reply"))
        with pytest.raises(TakeoverError) as caught:
            async with attempt.prompt_window():
                path.write_bytes(b"gone\n")
        for _ in range(2):
            with pytest.raises(TakeoverError) as again:
                await attempt.append(said("over it"))
            assert again.value is caught.value
    assert texts_or_none(path) is None


def texts_or_none(path: Path) -> list[str] | None:
    return None if path.read_bytes() == b"gone\n" else texts(path)
