"""Every combination of facts falls under one row; no living owner's claim is ever removed."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

import pytest

from holdfast._core.staleness import REASONS, ROWS, ClaimFacts, Row, reasons, verdict

VALUES: dict[str, tuple[object, ...]] = {
    "readable": (True, False, None),
    "ours": (True, False),
    "latch": ("mine", "free", "owner", "another", "?"),
    "local": (True, False),
    "host": (True, False, None),
    "boot": (True, False, None),
    "namespace": (True, False, None),
    "process": ("gone", "recycled", "itself", "unsure", "?"),
    "us": (True, False),
    "past_promise": (True, False),
    "past_age": (True, False),
}


@pytest.fixture(scope="module")
def everything() -> list[tuple[ClaimFacts, Row]]:
    """The whole finite space of facts, 64,800 of them, each with its row."""
    every = [ClaimFacts(*cells) for cells in product(*VALUES.values())]  # type: ignore[arg-type]
    return [(facts, verdict(facts)) for facts in every]


def test_the_space_is_whole() -> None:
    assert list(VALUES) == [field.name for field in fields(ClaimFacts)]
    cells = [cell for row in ROWS for cell in row.cells]
    cells += [cell for said, _ in REASONS.values() for cell in said]
    derived = {"overdue", "held", "dead"}
    assert {fact for fact, _ in cells} <= {*VALUES, *derived}
    for fact, values in cells:
        assert set(values) <= set(VALUES.get(fact, (True, False)))


def test_every_combination_has_a_row_and_every_row_a_combination(
    everything: list[tuple[ClaimFacts, Row]],
) -> None:
    assert {row.label for _, row in everything} == {row.label for row in ROWS}
    assert [row.label for row in ROWS] == sorted({*(row.label for row in ROWS)}, key=order)
    assert set("ABCDEFGHIJKL") <= {row.label[1] for row in ROWS}


def order(label: str) -> int:
    return [row.label for row in ROWS].index(label)


def test_age_alone_never_removes(everything: list[tuple[ClaimFacts, Row]]) -> None:
    for facts, row in everything:
        if row.verdict == "reclaim":
            young = replace(facts, past_promise=False, past_age=False)
            assert verdict(young).verdict == "reclaim", facts


def test_a_young_claim_is_reported_only_when_its_owner_seems_dead(
    everything: list[tuple[ClaimFacts, Row]],
) -> None:
    for facts, row in everything:
        if row.verdict == "report" and not facts.overdue:
            assert row.label in {"@K", "@N"}
            assert facts.boot is False or facts.process in {"gone", "recycled"}


def could_live(facts: ClaimFacts) -> bool:
    """
    Whether some owner that lives, and is inside its hold, could give these facts.

    This is written from how the world works and not from the table: a living owner of ours
    has its latch; one of this machine has this boot, and its pid is found as it was; only
    where other machines mount the file system can our own witnesses mean somebody else.
    """
    if facts.ours and facts.latch in {"mine", "free"}:
        if facts.local and facts.boot is True:
            return False  # flock is this kernel's, and it says: nobody.
        if facts.us and facts.latch == "mine":
            return False  # This process has one line for the name, and we are its head.
    on_this_machine = facts.host is True and facts.local
    if on_this_machine and facts.boot is False:
        # A living owner of this machine that is of another boot: there is none; but one of
        # ours whose latch is taken is somebody, whatever its claim says.
        return facts.ours and facts.latch in {"owner", "another"}
    if not on_this_machine or facts.namespace is not True or facts.readable is not True:
        return True
    if facts.process in {"gone", "recycled"}:
        return facts.ours and facts.latch in {"owner", "another"}
    return True


def test_no_owner_that_could_live_loses_its_claim(
    everything: list[tuple[ClaimFacts, Row]],
) -> None:
    for facts, row in everything:
        if could_live(facts):
            assert row.verdict != "reclaim", (row.label, facts)


def test_what_is_proven_dead_is_removed(everything: list[tuple[ClaimFacts, Row]]) -> None:
    for facts, row in everything:
        if not could_live(facts) and facts.readable is not None:
            assert row.verdict == "reclaim", (row.label, facts)


def test_what_names_nobody_is_never_removed_unless_it_is_ours(
    everything: list[tuple[ClaimFacts, Row]],
) -> None:
    for facts, row in everything:
        if facts.readable is not True and not facts.ours and facts.boot is not False:
            assert row.label in {"@J", "@A"}


def test_what_lives_and_is_young_is_waited_for(
    everything: list[tuple[ClaimFacts, Row]],
) -> None:
    for facts, row in everything:
        if facts.process in {"itself", "unsure"} and not facts.overdue and could_live(facts):
            assert row.verdict == "wait" or facts.boot is False, (row.label, facts)


def test_whatever_is_reported_or_removed_has_a_reason(
    everything: list[tuple[ClaimFacts, Row]],
) -> None:
    said: set[str] = set()
    for facts, row in everything:
        why = reasons(facts)
        said.update(why)
        if row.verdict != "wait":
            assert why, (row.label, facts)
    assert said == set(REASONS)


# --------------------------------------------------------------------- one by one, by label

STRANGER = ClaimFacts(
    readable=True, ours=False, latch="mine", local=True, host=True, boot=None, namespace=True,
    process="itself", us=False, past_promise=False, past_age=False,
)  # fmt: skip
OURS = replace(STRANGER, ours=True, boot=True, latch="owner")
ELSEWHERE = replace(STRANGER, namespace=False, process="?")


@pytest.mark.parametrize(
    ("label", "got", "facts", "why"),
    [
        ("@A", "wait", ELSEWHERE, "other_namespace"),
        ("@A", "wait", replace(STRANGER, host=False, process="?", local=False), "other_host"),
        ("@A", "wait", replace(STRANGER, readable=False, host=None, process="?"), "missing_pid"),
        ("@B", "report", replace(ELSEWHERE, past_age=True), "too_old"),
        ("@B", "report", replace(OURS, namespace=False, process="?", past_promise=True),
         "hold_exceeded"),
        ("@C", "reclaim", replace(STRANGER, boot=False, process="?"), "other_boot"),
        ("@D", "reclaim", replace(STRANGER, process="gone"), "dead_pid"),
        ("@E", "reclaim", replace(STRANGER, process="recycled"), "recycled_pid"),
        ("@F", "report", replace(STRANGER, process="unsure", past_age=True), "unknown_start"),
        ("@G", "wait", STRANGER, None),
        ("@G", "wait", replace(STRANGER, process="unsure"), "unknown_start"),
        ("@H", "report", replace(STRANGER, past_promise=True), "hold_exceeded"),
        ("@H", "report", replace(OURS, past_promise=True), "hold_exceeded"),
        ("@I", "reclaim", replace(OURS, latch="mine", local=False, us=True), "own_leak"),
        ("@J", "report", replace(STRANGER, readable=None, host=None, process="?",
                                 past_promise=True), "unreadable"),
        ("@K", "report", replace(OURS, process="gone"), "inherited_descriptor"),
        ("@L", "reclaim", replace(OURS, latch="mine", namespace=None, process="?"), "unlatched"),
        ("@M", "wait", replace(OURS, latch="another", process="gone"), "being_replaced"),
        ("@N", "report", replace(STRANGER, process="gone", local=False), "shared_filesystem"),
    ],
)  # fmt: skip
def test_the_rows(label: str, got: str, facts: ClaimFacts, why: str | None) -> None:
    row = verdict(facts)
    assert (row.label, row.verdict) == (label, got)
    assert why in reasons(facts) if why else reasons(facts) == ()
