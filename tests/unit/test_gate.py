"""The gate's order, and the ways around somebody who stopped in it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast.backends.files import fs, identity
from holdfast.backends.files.lock.gate import (
    FLOOR_AT,
    PATIENCE_S,
    POLL_LONG_S,
    POLL_MAX_S,
    TICKET_MAX,
    TICKETS_AT,
    Entry,
    Gate,
)
from holdfast.errors import LockTimeoutError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    before = set(os.listdir("/proc/self/fd"))
    yield str(tmp_path / "s.gate")
    assert len(os.listdir("/proc/self/fd")) == len(before), "a descriptor leaked"


def enter(path: str, now_s: float = 0.0) -> Entry:
    entry = Entry(path)
    entry.step(now_s)
    return entry


def leave(*entries: Entry) -> None:
    for entry in entries:
        entry.leave()


def head(path: str) -> tuple[int, int]:
    with open(path, "rb") as file:
        raw = file.read(16).ljust(16, b"\0")
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


def test_the_first_one_is_in_turn_at_once(path: str) -> None:
    entry = Entry(path)
    assert entry.step(0.0) is None
    assert entry.step(0.0) is None
    leave(entry)


def test_they_go_in_the_order_in_which_they_came(path: str) -> None:
    entries = [enter(path) for _ in range(5)]
    assert [entry.ticket for entry in entries] == [0, 1, 2, 3, 4]
    for number, entry in enumerate(entries):
        assert entry.step(0.0) is None
        for later in entries[number + 1 :]:
            assert later.step(0.0) is not None
        entry.leave()


def test_who_leaves_the_middle_holds_nobody_up(path: str) -> None:
    first, second, third = (enter(path) for _ in range(3))
    second.leave()
    assert third.step(0.0) is not None
    first.leave()
    assert third.step(0.0) is None
    leave(third)


def test_a_dead_owner_holds_no_place(path: str) -> None:
    first, second = enter(path), enter(path)
    fs.close_fd(first._fd)  # What the kernel does for the dead.
    assert second.step(0.0) is None
    leave(second)


def test_a_copy_of_the_descriptor_does_not_keep_the_place(path: str) -> None:
    """A child between fork and exec has one."""
    first, second = enter(path), enter(path)
    copy = os.dup(first._fd)
    first.leave()
    assert second.step(0.0) is None
    os.close(copy)
    leave(second)


def test_leaving_twice_does_nothing(path: str) -> None:
    entry = enter(path)
    entry.leave()
    other = os.open(path, os.O_RDONLY)  # Takes the number that has become free.
    entry.leave()
    os.fstat(other)
    os.close(other)


def test_the_gate_is_the_same_file_for_ever(path: str) -> None:
    leave(enter(path))
    inode = os.stat(path).st_ino
    leave(enter(path))
    assert os.stat(path).st_ino == inode
    assert head(path)[0] == 2


def test_the_motionless_may_be_passed_over_after_50_ms(path: str) -> None:
    stopped, ours = enter(path), enter(path)
    ours.step(1.0)
    assert not ours.passable(1.0 + PATIENCE_S * 0.9 - 1.0)
    assert ours.passable(PATIENCE_S)
    ours.pass_over()
    assert ours.step(2.0) is None
    assert ours.overtook
    leave(stopped, ours)


def test_nobody_else_waits_for_one_who_was_passed_over(path: str) -> None:
    stopped, ours = enter(path), enter(path)
    ours.pass_over()
    assert head(path)[1] == stopped.ticket + 1
    later = enter(path)
    assert later.step(0.0) is not None, "it still waits for us"
    ours.leave()
    assert later.step(0.0) is None, "it waited for the motionless one as well"
    leave(stopped, later)


def test_a_waiter_learns_in_place_that_somebody_was_passed_over(path: str) -> None:
    stopped, ours, later = enter(path), enter(path), enter(path)
    ours.pass_over()
    later.step(1.0)
    assert later._blocker == ours.ticket
    assert not later.passable(1.0 + PATIENCE_S / 2)
    leave(stopped, ours, later)


def test_movement_before_us_starts_patience_again(path: str) -> None:
    first, second, ours = enter(path), enter(path), enter(path)
    first.leave()
    ours.step(PATIENCE_S)
    assert not ours.passable(PATIENCE_S * 1.5)
    leave(second, ours)


def test_the_next_in_line_loses_patience_first(path: str) -> None:
    stopped, second, third = enter(path), enter(path), enter(path)
    assert second.passable(PATIENCE_S)
    assert not third.passable(PATIENCE_S)
    assert third.passable(PATIENCE_S * 2)
    leave(stopped, second, third)


def test_busy_behind_the_gate_means_to_keep_the_place(path: str) -> None:
    slow, ours = enter(path), enter(path)
    assert ours.passable(PATIENCE_S)
    ours.keep_place(PATIENCE_S)
    assert not ours.passable(PATIENCE_S * 1.5)
    slow.leave()
    assert ours.step(0.2) is None
    assert not ours.overtook
    leave(ours)


def test_who_stopped_with_the_counter_in_its_hand_is_passed_over(path: str) -> None:
    leave(enter(path))
    stopped = fs.open_fd(path, os.O_RDWR)
    assert fs.try_lock(stopped, fs.byte_lock(0))
    ours = Entry(path)
    assert ours.step(1.0) is not None
    assert not ours.passable(1.0)
    assert ours.step(1.0 + PATIENCE_S) is not None
    assert ours.passable(1.0 + PATIENCE_S)
    ours.pass_over()
    assert ours.step(2.0) is None
    leave(ours)
    fs.close_fd(stopped)


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 32, b"\x01", b"", (TICKET_MAX + 1).to_bytes(8, "little")]
)
def test_garbage_in_the_file_costs_order_never_the_gate(path: str, garbage: bytes) -> None:
    with open(path, "wb") as file:
        file.write(garbage)
    first, second = enter(path), enter(path)
    assert first.step(0.0) is None
    assert second.step(0.0) is not None
    first.leave()
    assert second.step(0.0) is None
    leave(second)


def test_a_counter_that_went_backwards_gives_no_ticket_twice(path: str) -> None:
    first = enter(path)
    os.pwrite(first._fd, bytes(8), 0)
    second = enter(path)
    assert second.ticket != first.ticket
    leave(first, second)


def test_a_floor_above_the_counter_is_not_believed(path: str) -> None:
    first = enter(path)
    os.pwrite(first._fd, (99).to_bytes(8, "little"), FLOOR_AT)
    second = enter(path)
    assert second.step(0.0) is not None
    leave(first, second)


def test_the_lowest_of_many_locks_is_found(path: str) -> None:
    entries = [enter(path) for _ in range(20)]
    for entry in (entries[0], entries[7], entries[3]):
        entry.leave()
    found = fs.first_locked(entries[-1]._fd, TICKETS_AT, TICKETS_AT + 19)
    assert found == TICKETS_AT + 1
    leave(*entries)


def test_a_long_wait_is_a_cheap_wait(path: str) -> None:
    """Also when the stage behind the gate is tried, and found busy, again and again."""
    slow, ours, third = enter(path, 0.0), enter(path, 0.0), enter(path, 0.0)
    for number in range(60):
        assert ours.step(number * 0.05) is not None
        ours.keep_place(number * 0.05)
    assert ours.step(3.0) == third.step(3.0) == POLL_LONG_S
    slow.leave()
    assert ours.step(3.0) is None
    moved_s = third.step(3.0)
    assert moved_s is not None
    assert moved_s < POLL_MAX_S
    leave(ours, third)


# ------------------------------------------------------------------ the blocking surface


def test_the_record_says_who_is_inside(path: str) -> None:
    gate = Gate(path)
    assert gate.holder() is None
    with gate.acquire(1.0, record=True):
        me = identity.me()
        assert gate.holder() == (me.pid, me.start)
    assert gate.holder() is None


def test_a_timeout_names_the_holder(path: str) -> None:
    gate = Gate(path)
    with gate.acquire(1.0, record=True):
        with pytest.raises(LockTimeoutError) as caught:
            gate.acquire(0.01)
    assert caught.value.holder == f"pid {os.getpid()}"
    gate.acquire(0.0).release()


def test_without_busy_nobody_is_ever_passed_over(path: str) -> None:
    stopped = enter(path)
    with pytest.raises(LockTimeoutError):
        Gate(path).acquire(PATIENCE_S * 3)
    leave(stopped)


def test_busy_is_asked_and_believed(path: str) -> None:
    stopped, answers = enter(path), [True, False]
    with Gate(path).acquire(5.0, busy=lambda: answers.pop(0)) as way:
        assert way.overtook
    assert answers == []
    leave(stopped)


def test_an_error_of_busy_gives_the_place_back(path: str) -> None:
    stopped = enter(path)

    def busy() -> bool:
        raise LookupError

    with pytest.raises(LookupError):
        Gate(path).acquire(5.0, busy=busy)
    leave(stopped)
    Gate(path).acquire(0.0).release()


def test_a_gate_that_cannot_be_opened_is_a_typed_error(path: str) -> None:
    with pytest.raises(StoreError):
        Gate(path + "/no/such/place").acquire(1.0)


def test_threads_pass_one_at_a_time_and_all_of_them(path: str) -> None:
    gate, inside, most, rounds = Gate(path), [0], [0], 40

    def run() -> None:
        for _ in range(rounds):
            with gate.acquire(30.0):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert head(path)[0] == 4 * rounds
