"""Who is stopped may be killed only when everything about it is certain: every combination."""

from __future__ import annotations

from dataclasses import fields
from itertools import product

from holdfast._core.frozen import Facts, What, judge

KNOWN: dict[str, tuple[object, ...]] = {
    "bool": (False, True), "bool | None": (False, True, None), "int": (999, 1000, 1001),
}  # fmt: skip
CERTAIN = {
    "stopped": True, "same": True, "holds": True, "kill": True, "ourselves": False,
    "registered": True, "same_namespace": True, "same_user": True, "traced": False,
}  # fmt: skip


def test_every_combination_of_facts() -> None:
    """KILL takes one combination of certainties, and a bound that is over."""
    names = [each.name for each in fields(Facts)]
    values = [
        (1000,) if each.name == "kill_ms" else KNOWN[str(each.type)] for each in fields(Facts)
    ]
    verdicts, killed = {}, []
    for chosen in product(*values):
        facts = Facts(**dict(zip(names, chosen, strict=True)))  # type: ignore[arg-type]
        verdict = judge(facts)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        certain = all(getattr(facts, name) is value for name, value in CERTAIN.items())
        assert (verdict.what is What.KILL) == (certain and facts.stopped_ms >= 1000), facts
        assert (verdict.what is What.WAIT) == (certain and facts.stopped_ms < 1000), facts
        seen = facts.stopped is True and facts.same is True and facts.holds is True
        assert (verdict.what is What.NOTHING) == (not seen), facts
        killed += [facts] * (verdict.what is What.KILL)
    assert len(killed) == 2
    assert {verdict.reason for verdict in verdicts} == {
        "runs", "unknown", "another_process", "holds_nothing", "setting", "ourselves",
        "stranger", "other_namespace", "other_user", "traced", "not_yet", "too_long",
    }  # fmt: skip
