"""`holdfast race`: the founding race, reproduced."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli import output

__all__ = ["race"]


def race(
    lanes: Annotated[int, typer.Option(min=1, help="Processes that write at once.")] = 3,
    turns: Annotated[int, typer.Option(min=1, help="Messages a lane.")] = 5,
    guard: Annotated[
        str,
        typer.Option(
            help="turns: through Holdfast.  off: nobody coordinates.  fence: a lock and a"
            " fingerprint, as in the founding system."
        ),
    ] = "turns",
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Let several lanes meet on one session, and count from the transcript what was lost.

    Runs in a scratch directory unless --store names one.  Exit code 1 if a guarded race
    lost a reply or left a broken transcript; with --guard off or fence losing is what it
    shows.

    \b
    holdfast race --guard off
    holdfast race --guard fence
    holdfast race --lanes 5 --turns 10
    """
    from holdfast.lab.race import run_race

    found = run_race(
        lanes=lanes,
        turns=turns,
        guard=guard,
        directory=store,
        report=None if as_json else output.say,
    )
    if as_json:
        output.emit(found)
    healthy = not found["lost"] and not found["interleaved"] and found["transcript_valid"]
    if guard == "turns" and not healthy:
        raise typer.Exit(1)
