"""
Each shape of defect that the founding threads fixed, put back, and the suite going red.

A mutant is a source transformation: it is applied to a copy of `src`, and the tests that
guard against that defect are run on the copy.  It fails loudly when its target is gone, so
that a guard cannot quietly outlive what it guards.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHIN_S = 150.0
FAILED = 1  #: pytest: tests ran, and some failed.  Anything else proves nothing.


@dataclass(frozen=True)
class Mutant:
    defect: str  #: What a user saw.
    where: str  #: Under src/holdfast.
    old: str  #: Stands there exactly once.
    new: str
    guard: str  #: What must go red: a pytest selection under tests/.
    limit_s: int = 60  #: For one test of the guard; what hangs is noticed by it.


MUTANTS = [
    Mutant(
        "the lock leaks when the fence read throws (#89811)",
        "_core/window.py",
        "        Signal.BAD: (State.LEAVING, _RELEASE),\n    },\n    State.RELEASING",
        "        Signal.BAD: (State.LEFT, ()),\n    },\n    State.RELEASING",
        "unit/test_attempt_alone.py::test_every_exit_vacates",
    ),
    Mutant(
        "a window that failed to open keeps its place in line (#86067)",
        "_core/attempt.py",
        "_S.OPENING: {Signal.OK: (_S.WINDOW, ()), Signal.BAD: (_S.GONE, _VACATE)}",
        "_S.OPENING: {Signal.OK: (_S.WINDOW, ()), Signal.BAD: (_S.GONE, ())}",
        "unit/test_attempt_torn.py",
    ),
    Mutant(
        "the wait for a compaction stands in line with the prompts (#86067)",
        "_core/attempt.py",
        "        Signal.REST: (_S.STEPPING, _OPEN),",
        "        Signal.REST: (_S.JOINING, (Effect.JOIN,)),",
        "unit/test_attempt_alone.py::test_an_idle_wait_queues_nobody",
    ),
    Mutant(
        "dispose does not vacate (#86427)",
        "_core/attempt.py",
        "return AttemptState.GONE, _VACATE if landing in HAS_PLACE else ()",
        "return AttemptState.GONE, ()",
        "unit/test_attempt_alone.py::test_every_exit_vacates",
    ),
    Mutant(
        "an abort waits for a writer that never ends (#89811's family)",
        "_runtime/lending.py",
        "async with asyncio.timeout(settle_s):\n                while self._writers",
        "async with asyncio.timeout(None):\n                while self._writers",
        "unit/test_attempt_alone.py::test_an_abort_is_bounded_even_if_a_writer_hangs",
        limit_s=10,
    ),
    Mutant(
        "the fence is never cleared: our own writes are a takeover",
        "_runtime/holder.py",
        "        self.mark = held.mark()\n        self.own = Ledger()\n",
        "        self.mark = self.mark or held.mark()\n",
        "unit/test_attempt_alone.py",
    ),
    Mutant(
        "contention after a stream is a takeover, for good",
        "_runtime/holder.py",
        "except (LockWaitError, AbortedError, asyncio.CancelledError) as error:",
        "except (AbortedError, asyncio.CancelledError) as error:",
        "unit/test_attempt_alone.py::test_contention_after_a_stream_is_not_final",
    ),
    Mutant(
        "a superseded attempt goes on talking (#82891)",
        "_runtime/acting.py",
        "            async for item in items:\n                self.check()\n",
        "            async for item in items:\n",
        "unit/test_attempt_alone.py::test_an_aborted_attempt_shows_starts_and_writes_nothing_more",
    ),
    Mutant(
        "the lock is held while tokens stream (#82891)",
        "_runtime/acting.py",
        "        async with self.prompt_window(), aclosing(source) as items:",
        "        async with aclosing(source) as items:",
        "unit/test_attempt_alone.py::test_somebody_appends_between_two_tokens_of_one_stream",
    ),
    Mutant(
        "session events still pending are taken for a stranger's (#86572)",
        "_runtime/holder.py",
        "            self._drain(self.held)  # Before the mark, which would take it for a stranger's.\n",
        "",
        "unit/test_attempt_alone.py::test_what_is_posted_is_written_before_a_mark_and_after_a_stream",
    ),
    Mutant(
        "a dispose waits for a lock that somebody else has (#86427's family)",
        "_runtime/lending.py",
        "async with asyncio.timeout(settle_s):\n                writer = await",
        "async with asyncio.timeout(None):\n                writer = await",
        "incidents/test_a_disposed_run_keeps_its_place.py"
        "::test_what_was_posted_is_no_reason_to_wait_for_a_busy_lock",
    ),
    Mutant(
        "a slow but living owner's lock is removed (#88658)",
        "_core/staleness.py",
        'Row("@H", "report",',
        'Row("@H", "reclaim",',
        "incidents/test_a_slow_but_living_owner_loses_its_lock.py"
        "::test_it_is_reported_and_its_lock_stays",
    ),
    Mutant(
        "whatever overstays is removed, by age alone (#88658)",
        "backends/files/lock/climb.py",
        'if found.verdict != "reclaim":',
        'if found.verdict == "wait":',
        "incidents/test_a_slow_but_living_owner_loses_its_lock.py"
        "::test_what_names_nobody_is_waited_for_until_its_grace_is_over",
    ),
    Mutant(
        "a claim that vanished while it was judged is reported (#87217)",
        "backends/files/lock/refusal.py",
        "        after = _judged(request, latched=latched, busy=busy)\n",
        "        after = before\n",
        "incidents/test_a_slow_but_living_owner_loses_its_lock.py"
        "::test_a_claim_that_changed_while_it_was_judged_is_not_reported",
    ),
    Mutant(
        "another user's process counts as dead (EPERM)",
        "backends/files/identity.py",
        '    except PermissionError:\n        return "alive"\n    return "alive"\n',
        '    except PermissionError:\n        return "dead"\n    return "alive"\n',
        "unit/test_standing.py::test_who_may_not_be_signalled_is_alive",
    ),
    Mutant(
        "what came instead of a dead claim is unlinked (65 of 100 stampedes)",
        "backends/files/lock/standing.py",
        "        fs.table.rename(path, aside)\n",
        "        fs.table.unlink(path)\n        return True\n",
        "unit/test_write_lock_claim.py::test_what_came_instead_of_a_dead_claim_is_put_back",
    ),
    Mutant(
        "without the latch, `rm *.lock` lets a second one in",
        "backends/files/lock/latch.py",
        "            fs.table.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        "e2e/test_strangers.py::test_an_operator_who_removes_lock_files_lets_nobody_of_ours_in",
    ),
    Mutant(
        "the claim is not looked at before an append: two write at once",
        "backends/files/lock/hold.py",
        "            self._check_claim()\n            self._check_file()\n            points.reach",
        "            self._check_file()\n            points.reach",
        "unit/test_attempt_alone.py::test_a_removed_claim_is_noticed_and_nothing_is_written",
    ),
    Mutant(
        "the watchdog gives the lock back and its holder writes on (#44510, #113019)",
        "backends/files/lock/tenure.py",
        "self._closing, self._end = threading.get_ident(), _End(reason, hint)\n"
        "            under_way",
        "self._end = _End(reason, hint)\n            under_way",
        "unit/test_watchdog.py::test_who_overstays_loses_the_lock_and_is_told_why",
    ),
    Mutant(
        "who is cancelled while it waits keeps its place in line",
        "backends/files/lock/write_lock.py",
        "    except BaseException:\n        line.leave(path, place)\n        raise\n    finally:\n",
        "    except Exception:\n        line.leave(path, place)\n        raise\n    finally:\n",
        "incidents/test_who_came_last_was_served_first.py"
        "::test_who_gives_up_is_out_of_the_line",
        limit_s=10,
    ),
    Mutant(
        "who came last is served first (#87159)",
        "backends/files/lock/line.py",
        "        line.append(place)\n        return False\n",
        "        line.insert(1, place)\n        return False\n",
        "incidents/test_who_came_last_was_served_first.py"
        "::test_a_newcomer_in_the_very_tick_of_the_release_waits_behind_all",
    ),
    Mutant(
        "two names of one file are two lines (#86067)",
        "backends/files/lock/line.py",
        '    return None if inode is None else f"{inode[0]}:{inode[1]}"\n',
        "    return None\n",
        "unit/test_line.py::test_all_names_of_a_file_are_one_queue",
        limit_s=10,
    ),
    Mutant(
        "contention is taken for the agent's failure (#83510)",
        "_runtime/conversation.py",
        "            except _CONTENTION:\n                raise\n",
        "",
        "incidents/test_all_models_failed_because_a_lock_was_busy.py"
        "::test_contention_that_comes_through_the_agent_is_not_the_models_fault",
    ),
    Mutant(
        "a busy lock fails the turn (#13744)",
        "_runtime/attempt.py",
        'return await self.give_back("write_lock", delay_ms=LOCK_AGAIN_MS)',
        'return await self.fail("write_lock", error)',
        "incidents/test_all_models_failed_because_a_lock_was_busy.py"
        "::test_a_busy_lock_before_the_model_is_asked_spends_no_attempt",
    ),
    Mutant(
        "a busy lock spends an attempt (#85913)",
        "_core/turns.py",
        '"taken_over", "write_lock",',
        '"taken_over",',
        "incidents/test_all_models_failed_because_a_lock_was_busy.py"
        "::test_a_busy_lock_before_the_model_is_asked_spends_no_attempt",
    ),
    Mutant(
        "the token is not looked at before an append: a superseded run replies (#82891)",
        "_runtime/booking.py",
        '    check_token(control, session, token)\n    _points.reach("token.checked")\n',
        '    _points.reach("token.checked")\n',
        "incidents/test_hidden_tokens_of_a_superseded_run.py"
        "::test_after_its_token_moved_on_it_shows_starts_and_writes_nothing",
    ),
    Mutant(
        "a run that beats is called stuck, and another started beside it (#85913)",
        "_core/beats.py",
        "            if known is None or known[0] != beat:\n",
        "            if known is None:\n",
        "incidents/test_stuck_recovery_starts_a_second_run_beside_the_first.py"
        "::test_a_run_that_lasts_longer_than_its_lease_is_not_stuck",
    ),
    Mutant(
        "a new name, a label, a custom line is a takeover (#93193)",
        "_core/fence.py",
        '    return Change("appended", others, head, "others have appended to it")\n',
        '    talk = all(entry.get("type") == "message" for entry in others)\n'
        '    return Change("appended" if talk else "rewritten", others, head, "")\n',
        "incidents/test_renaming_a_conversation_is_a_takeover.py",
    ),
    Mutant(
        "identical bytes on a new inode are a takeover (#92109)",
        "_core/fence.py",
        'Row("=B", False, (Size.SHRUNK, Size.EQUAL, Size.GROWN), None, None, "needs_digest",',
        'Row("=B", False, (Size.SHRUNK, Size.EQUAL, Size.GROWN), None, None, "rewritten",',
        "incidents/test_a_backup_touches_the_file_and_the_reply_is_lost.py",
    ),
    Mutant(
        "the fence takes over what others wrote, and tells nobody",
        "backends/files/transcript/held.py",
        'if row.verdict == "same" and (own is None or not own.ids):',
        'if row.verdict in {"same", "appended"} and (own is None or not own.ids):',
        "unit/test_attempt_alone.py::test_a_reply_goes_after_whatever_came_in_between",
    ),
    Mutant(
        "what a window wrote itself is told as a stranger's (#89259)",
        "_runtime/lending.py",
        "                borrower.wrote(batch)\n",
        "                pass\n",
        "incidents/test_our_own_write_is_called_a_takeover.py"
        "::test_a_write_whose_new_mark_could_not_be_left",
    ),
    Mutant(
        "an error in giving the lock back replaces a finished reply",
        "backends/files/lock/climb.py",
        '            self._echo("withdrawing the claim", error)\n',
        "            raise\n",
        "incidents/test_the_wrong_error_is_told.py"
        "::test_a_write_that_was_done_is_not_called_failed_by_its_release",
    ),
    Mutant(
        "what fails on the way out replaces the provider's own error",
        "_runtime/controller.py",
        "        except (HoldfastError, TimeoutError) as echo:\n"
        '            _log.info("%s: after %r: %s", self.path, cause, echo)\n',
        "        except ZeroDivisionError as echo:\n"
        '            _log.info("%s: after %r: %s", self.path, cause, echo)\n',
        "incidents/test_the_wrong_error_is_told.py",
    ),
    Mutant(
        "a message that nobody took in is called answered",
        "_runtime/merging.py",
        "    found = _asked_in(kept, names, host)\n    if",
        "    found = {TurnId(each) for each in names}\n    if",
        "e2e/test_policies.py::test_a_message_that_nobody_took_becomes_a_turn_of_its_own",
    ),
    Mutant(
        "a steered message is taken in twice",
        "_runtime/steering.py",
        "if turn.asked_entry is None and not turn.abort_requested",
        "if not turn.abort_requested",
        "e2e/test_policies.py::test_an_own_turn_is_steered_too",
    ),
    Mutant(
        "a message taken in by a killed host is asked again",
        "_runtime/merging.py",
        "            taken[TurnId(turn)] = entry_id\n",
        "            continue\n",
        "e2e/test_merges_survive.py",
    ),
    Mutant(
        "a rolled back question stays in the conversation",
        "_runtime/booking.py",
        'if reason == "rolled_back" and question is not None:',
        'if reason == "rolled back" and question is not None:',
        "e2e/test_policies.py"
        "::test_a_rolled_back_turn_leaves_the_conversation_and_stays_in_the_file",
    ),
    Mutant(
        "a later message of a person overtakes an earlier one in another lane",
        "_core/lanes.py",
        "        first = min(people, key=lambda head: head.admission)\n",
        "        first = min(people, key=lambda head: head.rank)\n",
        "unit/test_lanes.py",
    ),
    Mutant(
        "a heartbeat is ended after a tool that cannot run twice",
        "backends/files/control/policies.py",
        "replay = 'never')",
        "replay = 'nevermore')",
        "e2e/test_policies.py::test_a_heartbeat_that_has_run_a_tool_without_replay_finishes",
    ),
    Mutant(
        "a turn that waits for its child keeps its slot",
        "_runtime/asking.py",
        "    await door.store.control.wait_for(current.turn_id, current.token, child)\n",
        "",
        "e2e/test_policies.py::test_a_turn_that_waits_for_a_child_gives_its_slot_back",
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.defect)
def test_the_suite_notices(mutant: Mutant, tmp_path: Path) -> None:
    copy = tmp_path / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    target = copy / "holdfast" / mutant.where
    source = target.read_text()
    assert source.count(mutant.old) == 1, f"{mutant.where}: the target is gone: {mutant.old!r}"
    target.write_text(source.replace(mutant.old, mutant.new))
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
            "-o", "pythonpath=tests", f"--timeout={mutant.limit_s}", f"tests/{mutant.guard}",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=WITHIN_S,
        env={**os.environ, "PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert done.returncode == FAILED, done.stdout[-2000:] + done.stderr[-500:]


def test_the_copy_is_what_is_tested(tmp_path: Path) -> None:
    """Else every mutant would be tried on the original, and none would be noticed."""
    copy = tmp_path / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", "import holdfast; print(holdfast.__file__)"],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert done.stdout.startswith(str(copy))
