"""
Whether a process that is asked to let go of a session does so: a table, first row that fits.

    over        the turn has ended here, or went elsewhere        let go
    finishing   its end is being written down                     busy: it is over in a moment
    own, waits  `hf.turn`: its block waits for another turn       busy
    own, used   `hf.turn`: its block did something lately         busy
    own, idle   its block has done nothing for `OWN_IDLE_S`       let go: it ends, `cancelled`
    not begun   an agent's turn, before its model was asked       let go: back to its place
    in a tool   within the tool's own time                        busy
    moving      something moved within `LATELY_S`                 busy
    still       nothing did                                       let go: back to its place

Who is frozen, silent or dead does not answer; that is the asker's to tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from holdfast._core.words import duration

__all__ = ["BUSY", "LATELY_S", "LET_GO", "OWN_IDLE_S", "Answer", "Facts", "decide"]

LET_GO: Final = "let_go"
BUSY: Final = "busy"
OWN_IDLE_S: Final = 2.0  #: A block that thinks for itself tells us nothing of it.
LATELY_S: Final = 30.0  #: A model may be silent for so long before its first word.


@dataclass(frozen=True, slots=True)
class Facts:
    """What a turn is at, in the process that is asked."""

    here: bool = True  #: This process runs it.
    own: bool = False  #: `hf.turn`: its caller answers it.
    finishing: bool = False  #: Its reply, or its end, is being written.
    begun: bool = True  #: Its model was asked.
    tool: str | None = None  #: The tool that runs.
    tool_ms: int = 0  #: Since when.
    tool_left_ms: int = 0  #: Of the time that the tool may take; less than 0: it is over.
    still_ms: int = 0  #: Since anything moved, or the block last used its turn.
    run_ms: int = 0  #: Since it began.
    waits: bool = False  #: Its block waits for a turn that it has asked for.


@dataclass(frozen=True, slots=True)
class Answer:
    answer: str  #: LET_GO or BUSY
    detail: str  #: In words, for who asked.


def decide(facts: Facts) -> Answer:
    """The first row that fits."""
    still, ran = duration(facts.still_ms), duration(facts.run_ms)
    own_idle = facts.still_ms >= OWN_IDLE_S * 1000
    lately = facts.still_ms < LATELY_S * 1000
    tool = f"it has been in tool {facts.tool} for {duration(facts.tool_ms)}"
    left = f"{tool}, which may take {duration(facts.tool_left_ms)} more"
    rows = (
        (not facts.here, LET_GO, "its turn has ended already"),
        (facts.finishing, BUSY, "its reply is being written; it is over in a moment"),
        (facts.own and facts.waits, BUSY, "it waits for another turn, which it has asked for"),
        (facts.own and not own_idle, BUSY, f"its program used the turn {still} ago"),
        (facts.own, LET_GO, f"its program had done nothing with it for {still}"),
        (not facts.begun, LET_GO, "it had not asked its model yet"),
        (facts.tool is not None and facts.tool_left_ms > 0, BUSY, left),
        (lately, BUSY, f"it has been running for {ran}, and moved {still} ago"),
    )
    for fits, answer, detail in rows:
        if fits:
            return Answer(answer, detail)
    return Answer(LET_GO, f"nothing in it had moved for {still}")
