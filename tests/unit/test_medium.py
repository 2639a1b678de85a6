"""What a state directory stands on, and what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast._core.settings import Settings
from holdfast.backends.files import fs, medium
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.medium import FUSE, SHARED_TYPES, Mount, medium_of
from holdfast.backends.files.store import FilesStore, this_process
from holdfast.errors import LockStaleError, SharedFilesystemError
from holdfast.ports import Guarantees
from support.locks import stand

LOCAL = {
    "ext4": 0xEF53,
    "xfs": 0x58465342,
    "btrfs": 0x9123683E,
    "tmpfs": 0x01021994,
    "overlay": 0x794C7630,
    "zfs": 0x2FC12FC1,
    "f2fs": 0xF2F52010,
    "bcachefs": 0xCA451A4E,
    "of tomorrow": 0x12345678,
}
Pretend = Callable[[int, str], None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Let every path be on a file system of that type and name."""

    def be(kind: int, name: str) -> None:
        monkeypatch.setattr(fs.table, "statfs_type", lambda _: kind)
        mount = Mount("0:1", "/", name, read_only=False)
        monkeypatch.setattr(medium, "mount_of", lambda _: mount if name else None)

    return be


@pytest.mark.parametrize("name", LOCAL)
def test_a_local_file_system_is_never_refused(
    name: str, pretend: Pretend, tmp_path: Path
) -> None:
    pretend(LOCAL[name], name)
    assert not medium_of(str(tmp_path)).shared
    store = FilesStore(str(tmp_path / "state"), Settings())
    assert store.guarantees == Guarantees.FENCES_APPENDS | Guarantees.PROVES_DEATH
    store.control.close_now()


@pytest.mark.parametrize("kind", SHARED_TYPES)
def test_a_file_system_that_machines_share_is_refused_and_nothing_is_made(
    kind: int, pretend: Pretend, tmp_path: Path
) -> None:
    pretend(kind, "")
    with pytest.raises(SharedFilesystemError) as caught:
        FilesStore(str(tmp_path / "state"), Settings())
    assert caught.value.filesystem == SHARED_TYPES[kind]
    assert "allow_shared_filesystem" in (caught.value.hint or "")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("kind", "name", "shared"),
    [
        (FUSE, "fuse.sshfs", True),
        (FUSE, "fuse.glusterfs", True),
        (FUSE, "virtiofs", True),
        (FUSE, "", True),
        (FUSE, "fuseblk", False),
        (0x6969, "nfs4", True),
        (0x99999999, "wekafs", True),
        (0x99999999, "", False),
    ],
)
def test_the_type_decides_and_the_name_where_the_type_says_nothing(
    kind: int, name: str, shared: bool, pretend: Pretend, tmp_path: Path
) -> None:
    pretend(kind, name)
    assert medium_of(str(tmp_path)).shared is shared


def test_who_insists_gets_a_store_without_guarantees_and_is_told_once(
    pretend: Pretend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(0x6969, "nfs4")
    with caplog.at_level(logging.WARNING, "holdfast.store"):
        store = FilesStore(str(tmp_path / "state"), Settings(allow_shared_filesystem=True))
    assert store.guarantees == Guarantees.NONE
    (said,) = [record.getMessage() for record in caplog.records]
    assert "nfs4" in said
    other = this_process()
    dead = type(other)(
        other.owner_id, 2**22 + 1, 1, other.boot_id, other.pid_namespace, other.host
    )
    assert not store.is_dead(dead)
    store.control.close_now()


def test_a_dead_owner_is_proven_dead_on_a_local_file_system(tmp_path: Path) -> None:
    store = FilesStore(str(tmp_path / "state"), Settings())
    me = store.owner
    dead = type(me)(me.owner_id, 2**22 + 1, 1, me.boot_id, me.pid_namespace, me.host)
    assert store.is_dead(dead)
    assert not store.is_dead(me)
    store.control.close_now()


def test_a_dead_claim_on_a_shared_file_system_is_not_replaced(
    pretend: Pretend, tmp_path: Path
) -> None:
    """Another machine may be meant: a lock alone, without a store, knows that too."""
    path = str(tmp_path / "s.jsonl")
    with WriteLock(path):
        pass
    stand(path, pid=2**22 + 1, createdAt="2020-01-01T00:00:00Z", starttime=1, claimId="x")
    pretend(0x6969, "nfs4")
    with pytest.raises(LockStaleError):
        WriteLock(path, timeout_s=0.2).acquire_sync()
    assert (tmp_path / "s.jsonl.lock").exists()


def test_the_mount_is_found_by_its_number_not_by_comparing_paths(tmp_path: Path) -> None:
    found = medium.mount_of("/proc/self")
    assert found is not None
    assert (found.name, found.point) == ("proc", "/proc")
    assert medium.mount_of(str(tmp_path / "nothing")) is None
    assert medium_of(str(tmp_path / "not" / "there" / "yet")) == medium_of(str(tmp_path))
