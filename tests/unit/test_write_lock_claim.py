"""The claim beside a transcript, and the spare that it is published from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files import fs, identity
from holdfast.backends.files.lock import line, spare, standing
from holdfast.backends.files.lock.climb import Names
from holdfast.backends.files.lock.write_lock import Hold, WriteLock, statistics
from holdfast.errors import (
    ClaimUnknownError,
    LockLostError,
    LockStaleError,
    LockTimeoutError,
    LockWaitError,
    TakeoverError,
)
from support.locks import DEAD, in_thread, leaving_nothing, read, stand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    with leaving_nothing(tmp_path) as where:
        yield where


def test_the_claim_says_what_a_stranger_and_a_waiter_want_to_know(path: str) -> None:
    lock = WriteLock(
        path, max_hold_ms=60_005, lane='us"er', run_id="r1", session_id="s1", token=3
    )  # fmt: skip
    claims = []
    for _ in range(2):
        with lock:
            raw = read(path + ".lock").decode()
            claims.append(json.loads(raw))
            # Padded behind its newline, which no JSON reader minds.
            assert raw == (json.dumps(claims[-1], indent=2) + "\n").ljust(spare.SIZE)
    me, first = identity.me(), claims[0]
    assert list(first)[:4] == ["pid", "createdAt", "maxHoldMs", "starttime"]
    assert first["createdAt"].endswith("Z")
    assert first | {"createdAt": "", "claimId": ""} == {
        "pid": me.pid, "createdAt": "", "maxHoldMs": 60_005, "starttime": me.start, "token": 3,
        "runId": "r1", "sessionId": "s1", "lane": 'us"er', "host": me.host,
        "bootId": me.boot, "pidNamespace": me.pid_ns, "claimId": "",
    }  # fmt: skip
    assert claims[0]["claimId"] != claims[1]["claimId"]


@pytest.mark.parametrize("lane", ['us"er', "ü\n", None])
def test_a_claim_is_what_json_writes_with_an_indent(path: str, lane: str | None) -> None:
    with WriteLock(path, lane=lane, token=7):
        text = Path(f"{path}.lock").read_text(encoding="utf-8")
    assert text.rstrip(" ") == json.dumps(json.loads(text), indent=2) + "\n"


def test_names_that_were_resolved_before_are_resolved_again_if_they_lead_elsewhere(
    path: str, tmp_path: Path
) -> None:
    alias, other = tmp_path / "alias.jsonl", tmp_path / "other.jsonl"
    Path(path).touch()
    other.touch()
    alias.symlink_to(path)
    lock = WriteLock(alias, names=Names.of(str(alias)))
    alias.unlink()
    alias.symlink_to(other)
    with lock:
        assert os.path.exists(f"{other}.lock")
        assert not os.path.exists(f"{path}.lock")


def test_who_removes_the_claim_stops_the_holder_and_lets_nobody_in(path: str) -> None:
    with WriteLock(path) as hold:
        hold.append(b"{}\n", sync=False)
        os.unlink(path + ".lock")
        with pytest.raises(LockTimeoutError):
            in_thread(lambda: WriteLock(path, timeout_s=0.05).acquire_sync())
        with pytest.raises(LockLostError):
            hold.append(b"{}\n", sync=False)
        with pytest.raises(LockLostError):
            hold.check()
    assert read(path) == b"{}\n"


def test_release_leaves_a_claim_that_is_not_ours(path: str) -> None:
    with WriteLock(path):
        os.unlink(path + ".lock")
        with open(path + ".lock", "w") as stranger:
            stranger.write("{}")
    assert read(path + ".lock") == b"{}"
    os.unlink(path + ".lock")


def test_a_file_replaced_under_the_lock_is_not_written(path: str, tmp_path: Path) -> None:
    with WriteLock(path) as hold:
        (tmp_path / "new").write_bytes(b"edited\n")
        os.rename(tmp_path / "new", path)
        with pytest.raises(TakeoverError):
            hold.append(b"{}\n", sync=False)
    assert read(path) == b"edited\n"


@pytest.mark.parametrize(
    "owner",
    [
        {"bootId": identity.me().boot, "host": identity.me().host},
        {"bootId": identity.me().boot, "host": "another name", "pidNamespace": 1},
        {"bootId": identity.me().boot, "pid": os.getpid(), "starttime": identity.me().start},
        {"bootId": "an earlier boot", "host": identity.me().host},
    ],
    ids=["@L", "@L-other-namespace", "@L-our-own-leak", "@C"],
)
def test_a_dead_claim_of_ours_is_replaced_at_once(path: str, owner: dict[str, Any]) -> None:
    stand(path, **DEAD | owner)
    before = statistics().reclaimed
    with WriteLock(path, timeout_s=0) as hold:
        assert json.loads(read(path + ".lock"))["pid"] == os.getpid()
        hold.check()
    assert statistics().reclaimed == before + 1


@pytest.mark.parametrize(
    "fields",
    [
        {"pid": os.getpid()},
        {"pid": os.getpid(), "starttime": identity.me().start},
        {"pid": 1},
        {"pid": os.getpid(), "createdAt": "2020-01-01T00:00:00Z", "maxHoldMs": 1},
        DEAD | {"bootId": "another boot", "host": "another host"},
        DEAD | {"pidNamespace": 1},
        {"pid": DEAD["pid"], "pidNamespace": 1},
        {"pid": True, "starttime": 1},
        {"pid": 2**70},
        {},
    ],
    ids=[
        *("no-start", "alive", "init", "alive-and-old", "another-host", "ours-elsewhere"),
        *("elsewhere", "no-number", "no-pid", "empty"),
    ],
)
def test_a_claim_whose_owner_is_not_proven_dead_is_never_removed(
    path: str, fields: dict[str, Any]
) -> None:
    stand(path, **fields)
    before = os.stat(path + ".lock").st_ino, read(path + ".lock")
    with pytest.raises(LockWaitError):
        WriteLock(path, timeout_s=0.02).acquire_sync()
    assert (os.stat(path + ".lock").st_ino, read(path + ".lock")) == before
    os.unlink(path + ".lock")
    WriteLock(path, timeout_s=0).acquire_sync().release()


@pytest.mark.parametrize("how", ["garbage", "symlink", "directory"])
def test_a_claim_that_cannot_be_read_is_waited_for(path: str, how: str) -> None:
    name = path + ".lock"
    if how == "garbage":
        with open(name, "wb") as file:
            file.write(b"\xff{")
    elif how == "symlink":
        os.symlink("nowhere", name)
    else:
        os.mkdir(name)
    with pytest.raises(LockTimeoutError):
        WriteLock(path, timeout_s=0.02).acquire_sync()
    if how != "directory":  # Long after the grace it is reported, and stays all the same.
        os.utime(name, (0, 0), follow_symlinks=False)
        with pytest.raises(LockStaleError) as caught:
            WriteLock(path, timeout_s=0.02).acquire_sync()
        assert caught.value.row == "@J"
    assert os.path.lexists(name)
    (os.rmdir if how == "directory" else os.unlink)(name)


def test_on_another_file_system_an_earlier_boot_proves_nothing(
    path: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(standing, "_is_local", lambda _: False)
    stand(path, **DEAD | {"bootId": "an earlier boot", "host": identity.me().host})
    with pytest.raises(LockStaleError) as caught:
        WriteLock(path, timeout_s=0).acquire_sync()
    assert caught.value.row == "@N"
    assert {"other_boot", "shared_filesystem"} <= set(caught.value.reasons)
    os.unlink(path + ".lock")


@pytest.mark.parametrize("when", ["before", "at"])
def test_what_came_instead_of_a_dead_claim_is_put_back(
    path: str, when: str, monkeypatch: Any
) -> None:
    """The founding system's race: checked, then unlinked what had come in between."""
    stand(path, **DEAD)
    dead, real = standing.read_standing(path + ".lock"), fs.table.rename
    assert dead is not None

    def replace() -> None:
        os.unlink(path + ".lock")
        stand(path, pid=1)

    def rename(old: str, new: str) -> None:
        if when == "at":
            replace()
        real(old, new)

    if when == "before":
        replace()
    monkeypatch.setattr(fs.table, "rename", rename)
    assert not standing.set_aside(path + ".lock", dead, "c1")
    dead.close()
    assert json.loads(read(path + ".lock")) == {"pid": 1}
    os.unlink(path + ".lock")


def test_when_nobody_says_whether_the_claim_landed(path: str, monkeypatch: Any) -> None:
    link, lstat = fs.table.link, fs.table.lstat

    def linked_and_silent(*args: Any, **kwargs: Any) -> None:
        link(*args, **kwargs)
        raise OSError(5, "Input/output error")

    def blind(name: str) -> os.stat_result:
        if name == path + ".lock":
            raise OSError(5, "Input/output error")
        return lstat(name)

    WriteLock(path).acquire_sync().release()
    with monkeypatch.context() as patch:
        patch.setattr(fs.table, "link", linked_and_silent)
        patch.setattr(fs.table, "lstat", blind)
        with pytest.raises(ClaimUnknownError):
            WriteLock(path).acquire_sync()
    assert os.path.exists(path + ".lock"), "it had landed"
    WriteLock(path, timeout_s=0).acquire_sync().release()


def test_without_o_tmpfile_a_private_name_does(path: str, monkeypatch: Any) -> None:
    real = fs.table.open

    def refuse(name: str, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(name, flags, *rest)

    os.symlink("nowhere", path + ".claim")  # No spare, either.
    monkeypatch.setattr(fs.table, "open", refuse)
    with WriteLock(path) as hold:
        hold.append(b"{}\n", sync=False)
        assert len(os.listdir(os.path.dirname(path))) == 4  # transcript, gate, claim, symlink


# ----------------------------------------------------------------------------- the spare


def made(path: str) -> int:
    """Let a first hold make the spare.  Its inode number."""
    WriteLock(path).acquire_sync().release()
    found = os.lstat(path + ".claim")
    assert (found.st_nlink, found.st_size, found.st_mode & 0o777) == (1, spare.SIZE, 0o600)
    return found.st_ino


def test_one_spare_serves_one_claim_after_another(path: str) -> None:
    inode, claims = made(path), set()
    for _ in range(3):
        with WriteLock(path) as hold:
            hold.check()
            assert os.lstat(path + ".lock").st_ino == inode
            claims.add(json.loads(read(path + ".lock"))["claimId"])
    assert len(claims) == 3
    assert made(path) == inode


def test_a_claim_that_is_too_long_for_the_spare_has_its_own_inode(path: str) -> None:
    inode, run = made(path), "r" * spare.SIZE
    with WriteLock(path, run_id=run) as hold:
        hold.check()
        assert json.loads(read(path + ".lock"))["runId"] == run
        assert os.lstat(path + ".lock").st_ino != inode


def another_link(path: str) -> None:
    os.link(path + ".claim", path + ".backup")


def another_mode(path: str) -> None:
    os.chmod(path + ".claim", 0o644)


def another_size(path: str) -> None:
    with open(path + ".claim", "ab") as file:
        file.write(b"notes of mine\n")


def a_symlink(path: str) -> None:
    os.rename(path + ".claim", path + ".elsewhere")
    os.symlink(path + ".elsewhere", path + ".claim")


def a_directory(path: str) -> None:
    os.unlink(path + ".claim")
    os.mkdir(path + ".claim")


def a_pipe(path: str) -> None:
    os.unlink(path + ".claim")
    os.mkfifo(path + ".claim", 0o600)


@pytest.mark.parametrize(
    "spoil", [another_link, another_mode, another_size, a_symlink, a_directory, a_pipe]
)
def test_what_is_not_our_spare_is_left_alone(path: str, spoil: Callable[[str], None]) -> None:
    made(path)
    spoil(path)
    before, content = os.lstat(path + ".claim"), [read_if_file(path + ".claim")]
    for _ in range(2):
        with WriteLock(path, timeout_s=0) as hold:
            hold.append(b"{}\n", sync=False)
            assert os.lstat(path + ".lock").st_ino not in {before.st_ino, inode_behind(path)}
    assert os.lstat(path + ".claim") == before
    assert [read_if_file(path + ".claim")] == content


def read_if_file(name: str) -> bytes:
    return read(name) if os.path.isfile(name) else b""


def inode_behind(path: str) -> int:
    return os.stat(path + ".claim").st_ino


def test_somebody_elses_spare_is_left_alone(path: str, monkeypatch: Any) -> None:
    inode, uid = made(path), os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with WriteLock(path) as hold:
        hold.check()
        assert os.lstat(path + ".lock").st_ino != inode


@pytest.mark.parametrize("written", [0, 10], ids=["nothing", "a-part"])
def test_a_spare_that_was_not_written_whole_is_not_published(
    path: str, written: int, monkeypatch: Any
) -> None:
    real = fs.table.pwrite

    def short(fd: int, data: bytes, at: int) -> int:
        return real(fd, data[:written] if len(data) == spare.SIZE else data, at)

    with monkeypatch.context() as patch:
        patch.setattr(fs.table, "pwrite", short)
        with WriteLock(path) as hold:
            hold.check()
            assert json.loads(read(path + ".lock"))["pid"] == os.getpid()
        assert not os.path.exists(path + ".claim"), "it could never be used again"
    made(path)


def test_a_dead_owners_claim_is_unlinked_before_the_spare_is_rewritten(
    path: str, monkeypatch: Any
) -> None:
    """A stranger that looks at the claim never sees two of ours mixed, nor half of one."""
    inode = made(path)
    with WriteLock(path):
        left = read(path + ".lock")
        os.link(path + ".lock", path + ".kept")
    os.rename(path + ".kept", path + ".lock")
    seen, real = [], fs.table.pwrite

    def looking(fd: int, data: bytes, at: int) -> int:
        if len(data) == spare.SIZE:
            seen.append(os.path.exists(path + ".lock"))
        return real(fd, data, at)

    monkeypatch.setattr(fs.table, "pwrite", looking)
    before = statistics().reclaimed
    with WriteLock(path, timeout_s=0) as hold:
        hold.check()
        assert os.lstat(path + ".lock").st_ino == inode, "the spare is good again"
        assert read(path + ".lock") != left
    assert seen == [False]
    assert statistics().reclaimed == before + 1


def test_removing_the_spare_under_a_holder_changes_nothing(path: str) -> None:
    made(path)
    with WriteLock(path) as hold:
        os.unlink(path + ".claim")
        hold.append(b"{}\n", sync=False)
    made(path)


def test_a_spare_removed_between_writing_and_linking(path: str, monkeypatch: Any) -> None:
    made(path)
    real = fs.table.link

    def link(source: str, target: str, **rest: Any) -> None:
        if source == path + ".claim":
            os.unlink(source)
        real(source, target, **rest)

    monkeypatch.setattr(fs.table, "link", link)
    with WriteLock(path) as hold:
        hold.append(b"{}\n", sync=False)


def test_removing_the_claim_stops_the_holder_though_the_spare_stays(path: str) -> None:
    made(path)
    with WriteLock(path) as hold:
        os.unlink(path + ".lock")
        with pytest.raises(LockLostError):
            hold.append(b"{}\n", sync=False)
        with open(path + ".lock", "w") as stranger:
            stranger.write("{}")
        with pytest.raises(LockLostError):
            hold.append(b"{}\n", sync=False)
    assert read(path + ".lock") == b"{}"
    os.unlink(path + ".lock")


def test_two_hard_links_of_a_transcript_have_two_spares(path: str, tmp_path: Path) -> None:
    inode, alias = made(path), str(tmp_path / "alias.jsonl")
    os.link(path, alias)
    assert made(alias) != inode
    with WriteLock(path) as hold:
        with pytest.raises(LockTimeoutError):
            in_thread(WriteLock(alias, timeout_s=0.05).acquire_sync)
        hold.append(b"{}\n", sync=False)


def two_holders(path: str) -> tuple[Hold, Hold]:
    """One that was frozen while its transcript was replaced, and the one that came then."""
    made(path)
    frozen = WriteLock(path).acquire_sync()
    with open(path + ".new", "wb") as file:
        file.write(b"edited\n")
    os.rename(path, path + ".old")
    os.rename(path + ".new", path)
    line.leave(path, frozen._grip.place)  # Another process would have a line of its own.
    newcomer: Hold = in_thread(WriteLock(path, timeout_s=5).acquire_sync)
    assert os.lstat(path + ".lock").st_ino == os.lstat(path + ".claim").st_ino
    return frozen, newcomer


def test_who_was_frozen_while_its_file_was_replaced_has_lost(path: str) -> None:
    """The newcomer's claim is on the very inode that the old holder has open."""
    frozen, newcomer = two_holders(path)
    with pytest.raises(LockLostError):
        frozen.check()
    with pytest.raises(LockLostError):
        frozen.append(b"late\n", sync=False)
    newcomer.append(b"{}\n", sync=False)
    frozen.release()
    newcomer.check()
    newcomer.append(b"{}\n", sync=False)
    newcomer.release()
    assert read(path) == b"edited\n{}\n{}\n"


def test_who_was_frozen_cannot_write_even_when_its_file_comes_back(path: str) -> None:
    frozen, newcomer = two_holders(path)
    os.rename(path + ".old", path)
    with pytest.raises(LockLostError):
        frozen.append(b"late\n", sync=False)
    with pytest.raises(TakeoverError):
        newcomer.append(b"{}\n", sync=False)
    newcomer.release()
    frozen.release()
    assert read(path) == b""


def test_the_same_inode_with_another_claim_is_not_set_aside(
    path: str, monkeypatch: Any
) -> None:
    """Judged dead; then unlinked, and the inode published anew with another claim."""
    made(path)
    with open(path + ".claim", "r+b") as file:
        file.write(json.dumps(DEAD).encode().ljust(spare.SIZE))
    os.link(path + ".claim", path + ".lock")
    dead, real = standing.read_standing(path + ".lock"), fs.table.rename
    assert dead is not None

    def rename(old: str, new: str) -> None:
        with open(path + ".claim", "r+b") as file:
            file.write(json.dumps({"pid": 1}).encode().ljust(spare.SIZE))
        real(old, new)

    monkeypatch.setattr(fs.table, "rename", rename)
    for _ in range(2):  # In between; and before it began.
        assert not standing.set_aside(path + ".lock", dead, "c1")
    dead.close()
    assert json.loads(read(path + ".lock")) == {"pid": 1}
    os.unlink(path + ".lock")
