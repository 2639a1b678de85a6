"""A soak's report: JSON for programs, Markdown for people."""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from holdfast._runtime.receipts import between_ms
from holdfast._stamps import now_iso
from holdfast.backends.files.reading import FilesReading
from holdfast.lab import report
from holdfast.lab.figures import quantile
from holdfast.lab.soak_checks import check, duplicates, unanswered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast.lab.soak import Seen
    from holdfast.lab.soak_plan import Plan
    from holdfast.lab.soak_world import World

__all__ = ["around", "judged", "markdown", "memory", "write"]

EARLY_S: Final = 15.0
LATE_S: Final = 60.0
AROUND_S: Final = 2.0  #: One sample alone says little.
RSS_MOST: Final = 1.2
SHOWN_MOST: Final = 50  #: Problems of one check that are written down.


def judged(plan: Plan, world: World, seen: Seen, state: str) -> dict[str, Any]:
    """The JSON of `holdfast lab run soak`."""
    problems = check(world)
    if seen.trouble:
        problems["processes"] = seen.trouble
    rss = memory(seen.rss, plan.duration_s)
    if rss["ratio"] is not None and rss["ratio"] > RSS_MOST:
        problems["memory"] = [f"{rss['ratio']:g} × what it was: {RSS_MOST:g} × is the bound"]
    happened = report.from_store(FilesReading(state), "")
    return {
        "clean": not problems,
        "accepted": len(world.turns),
        "outcomes": dict(Counter(str(turn["outcome"]) for turn in world.turns.values())),
        "unanswered": len(unanswered(world)),
        "duplicates": duplicates(problems),
        "holds_left": sum(world.holds.values()),
        "transcripts_ok": "transcripts_verify" not in problems,
        "rss_ratio": rss["ratio"],
        "problems": {name: found[:SHOWN_MOST] for name, found in problems.items()},
        "seed": plan.seed,
        "processes": plan.processes,
        "sessions": plan.sessions,
        "duration_s": plan.duration_s,
        "at": now_iso(),
        "storm": {
            "killed": seen.killed, "stopped": seen.stopped, "lives": seen.lives,
            "frozen_holder": plan.frozen_holder, "frozen_killed": world.frozen_killed,
            "calm_s": seen.calm_s,
        },
        "senders": _senders(world),
        "by_lane": dict(Counter(str(turn["lane"]) for turn in world.turns.values())),
        "reasons": dict(_reasons(world).most_common()),
        "deliveries": {
            **Counter(str(row["state"]) for row in world.deliveries),
            "attempts": sum(int(row["attempts"]) for row in world.deliveries),
            "requests": world.receiver["requests"],
            "processed": world.receiver["processed"],
        },
        "tools": _tools(world),
        "waits": {"all": _waits(world), **happened["waits"]},
        **{f"{sort}s": told for sort, told in happened["happened"].items()},
        "rss": rss,
    }  # fmt: skip


def _senders(world: World) -> dict[str, int]:
    """What senders were told: three answers, and the third is looked up."""
    begun = {str(note["of"]) for note in world.notes if note["what"] == "begun"}
    accepted = {str(note["of"]) for note in world.notes if note["what"] == "accepted"}
    refused = {
        str(note["of"]) for note in world.notes if note["what"] == "refused" and "of" in note
    }
    unknown = begun - accepted - refused
    keys = {turn["idempotency_key"] for turn in world.turns.values()}
    return {
        "begun": len(begun), "accepted": len(accepted), "refused": len(refused - accepted),
        "unknown": len(unknown),
        "unknown_accepted": sum(f"soak-{each}" in keys for each in unknown),
    }  # fmt: skip


def _reasons(world: World) -> Counter[str]:
    return Counter(
        f"{turn['outcome']} ({turn['reason']})"
        for turn in world.turns.values() if turn["reason"]
    )  # fmt: skip


def _tools(world: World) -> dict[str, int]:
    states = Counter(f"{row['replay']}_{row['state']}" for row in world.calls)
    return {**states, "effects": sum(world.effects.values())}


def _waits(world: World) -> dict[str, float] | None:
    """From acceptance to the first start, over all lanes."""
    waited = [
        between_ms(turn["accepted_at"], turn["started_at"])
        for turn in world.turns.values() if turn["started_at"] is not None
    ]  # fmt: skip
    if not waited:
        return None
    return {
        "turns": len(waited), "total_ms": sum(waited), "p50_ms": quantile(waited, 0.5),
        "p95_ms": quantile(waited, 0.95), "max_ms": max(waited),
    }  # fmt: skip


# --------------------------------------------------------------------------------- memory


def memory(samples: Mapping[str, list[tuple[float, int]]], duration_s: float) -> dict[str, Any]:
    """
    How processes that lived from *EARLY_S* to *LATE_S* and longer have grown.

    Shorter soaks compare what they have, and say so; under half a minute they compare nothing.
    """
    late_s = min(LATE_S, duration_s)
    found: dict[str, Any] = {"early_s": EARLY_S, "late_s": late_s, "ratio": None, "by": {}}
    if late_s < 2 * EARLY_S:
        return {**found, "note": f"{duration_s:g} s are too short to tell"}
    for name, each in samples.items():
        early, late = around(each, EARLY_S), around(each, late_s)
        if early is None or late is None:
            continue
        end = each[-1][1]
        found["by"][name] = {
            "early_mb": round(early / 1e6, 1), "late_mb": round(late / 1e6, 1),
            "end_mb": round(end / 1e6, 1), "ratio": round(late / early, 3),
        }  # fmt: skip
    ratios = [each["ratio"] for each in found["by"].values()]
    found["ratio"] = max(ratios, default=None)
    if late_s < LATE_S:
        found["note"] = f"after {late_s:g} s, not {LATE_S:g}: it was shorter"
    return found


def around(samples: list[tuple[float, int]], at_s: float) -> float | None:
    """The median of the samples about a moment; None: there are none."""
    near = [value for when, value in samples if abs(when - at_s) <= AROUND_S]
    return statistics.median(near) if near else None


# ------------------------------------------------------------------------------- for people


def write(found: Mapping[str, Any], directory: str) -> None:
    """`soak.json` and `soak.md`.  Raises OSError."""
    with open(os.path.join(directory, "soak.json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(found, indent=2) + "\n")
    with open(os.path.join(directory, "soak.md"), "w", encoding="utf-8") as file:
        file.write("\n".join(markdown(found)) + "\n")


def markdown(found: Mapping[str, Any]) -> Iterator[str]:
    storm, senders = found["storm"], found["senders"]
    yield "# Soak"
    yield ""
    yield (
        f"{found['at']}: {found['processes']} runners, {found['sessions']} sessions,"
        f" {found['duration_s']:g} s, seed {found['seed']}:"
        f" **{'clean' if found['clean'] else 'NOT CLEAN'}**"
    )
    yield ""
    yield (
        f"{storm['killed']} killed, {storm['stopped']} stopped, {storm['frozen_killed']} ended"
        f" as frozen (recovery.frozen_holder = {storm['frozen_holder']}), {storm['lives']}"
        f" lives; nothing waited {storm['calm_s']:g} s after the storm."
    )
    yield ""
    yield "| what | |"
    yield "|---|---:|"
    yield f"| messages begun · refused | {senders['begun']} · {senders['refused']} |"
    yield f"| turns accepted | {found['accepted']} |"
    for outcome, count in found["outcomes"].items():
        yield f"| … {outcome} | {count} |"
    for name in ("unanswered", "duplicates", "holds_left"):
        yield f"| {name.replace('_', ' ')} | {found[name]} |"
    yield f"| transcripts | {'verify' if found['transcripts_ok'] else 'DO NOT VERIFY'} |"
    yield f"| memory, late ÷ early | {found['rss_ratio'] or found['rss'].get('note')} |"
    for name, told in (("deliveries", found["deliveries"]), ("tools", found["tools"])):
        yield f"| {name} | {', '.join(f'{key} {value}' for key, value in told.items())} |"
    yield ""
    yield from _lanes(found)
    if found["problems"]:
        yield "## What is wrong"
        yield ""
        for name, problems in found["problems"].items():
            yield from (f"- {name}: {each}" for each in problems)


def _lanes(found: Mapping[str, Any]) -> Iterator[str]:
    yield "| lane | turns | waited p50 | p95 | max (ms) |"
    yield "|---|---:|---:|---:|---:|"
    for lane, told in found["waits"].items():
        if told:
            yield (
                f"| {lane} | {told['turns']} | {told['p50_ms']} | {told['p95_ms']} |"
                f" {told['max_ms']} |"
            )
    yield ""
    sorts = [key for key in found if isinstance(found[key], dict) and "by_lane" in found[key]]
    yield "| what | total | by lane |"
    yield "|---|---:|---|"
    for sort in sorts:
        lanes = ", ".join(f"{lane} {count}" for lane, count in found[sort]["by_lane"].items())
        yield f"| {sort} | {found[sort]['total']} | {lanes or '–'} |"
    yield ""
