"""Every combination of facts falls under one row, and only proof of death reclaims."""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import pytest

from holdfast._core.staleness import ROWS, ClaimFacts, verdict

NAMES = [field.name for field in fields(ClaimFacts)]
ALL = [ClaimFacts(*cells) for cells in product((False, True), repeat=len(NAMES))]


def test_every_combination_has_a_verdict() -> None:
    assert {verdict(facts).label for facts in ALL} == {row.label for row in ROWS}


@pytest.mark.parametrize("facts", ALL)
def test_only_our_own_claims_under_our_latch_are_reclaimed(facts: ClaimFacts) -> None:
    row = verdict(facts)
    if row.verdict == "reclaim":
        assert facts.ours
        assert facts.latched
        assert facts.same_boot or (facts.other_boot and facts.same_host and facts.local)
    else:
        assert row.label == "@W"


def test_rows_name_facts_that_exist() -> None:
    assert {need for row in ROWS for need in row.needs} <= set(NAMES)


def facts(**known: bool) -> ClaimFacts:
    return ClaimFacts(**{name: known.get(name, False) for name in NAMES})


def test_our_claim_of_this_boot_is_dead_by_construction() -> None:
    assert verdict(facts(ours=True, latched=True, same_boot=True)).label == "@L"


def test_our_claim_of_an_earlier_boot_is_dead() -> None:
    found = facts(ours=True, latched=True, other_boot=True, same_host=True, local=True)
    assert verdict(found).label == "@C"


@pytest.mark.parametrize("missing", ["local", "same_host", "latched", "ours"])
def test_another_boot_proves_nothing_without(missing: str) -> None:
    known = dict.fromkeys(("ours", "latched", "other_boot", "same_host", "local"), True)
    assert verdict(facts(**known | {missing: False})).verdict == "wait"


def test_a_strangers_claim_is_waited_for_whatever_its_age() -> None:
    found = facts(latched=True, same_boot=True, same_host=True, local=True)
    assert verdict(found).label == "@W"
