"""`holdfast serve`: answer over HTTP, until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast.gateway.serve import Serving
    from holdfast.ports import Agent
    from holdfast.types import Drained

__all__ = ["DEFAULTS", "serve"]

#: Whoever serves looks after the store: a stopped process is not waited for without end.
DEFAULTS: Final = {"recovery.frozen_holder": "kill"}
#: For agents to close, and for calls to notice that they were cancelled.
LEAVE_WITHIN_S: Final = 3.0

_log = logging.getLogger("holdfast")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (8787); 0 = a free one.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Model of agent main, e.g. openai-chat:gpt-4o-mini.")
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="[ID=]MODULE:OBJECT", help="Your own agent; may be repeated."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Instead of the one in gateway.token.")
    ] = None,
    config: output.Config = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Serve sessions over HTTP: messages, live output, OpenAI's chat completions, a page.

    Several may serve one state directory; they share the work.  SIGTERM or Ctrl-C drains:
    nothing new is started, running turns finish (gateway.drain_ms) or go back to their places,
    waiting ones stay queued.  Exit code 0: nothing was cut short; 1: turns went back.

    \b
    holdfast serve --model openai-chat:gpt-4o-mini
    holdfast serve --agent my_agents:support --port 9000
    """
    from holdfast import _assemble
    from holdfast.config import agent_flags

    flags: dict[str, Any] = {
        "gateway.host": host,
        "gateway.port": port,
        "gateway.token": token,
        "agents.main.model": model,
        **agent_flags(agent or []),
    }
    given = {name: value for name, value in flags.items() if value is not None}
    settings = output.settings(config, given, defaults=DEFAULTS)
    _assemble.import_from_here()
    agents = _assemble.agents_from(settings)
    if "main" not in agents:
        from holdfast.agents.demo import DemoAgent

        agents["main"] = DemoAgent()
        output.note(
            "holdfast: the built-in demo model answers for agent main; name a real one with"
            " --model, --agent or agents.main.model"
        )
    drained = asyncio.run(_serve(output.where(store), settings, agents, as_json=as_json))
    raise typer.Exit(_code(drained))


async def _serve(
    where: str, settings: Settings, agents: dict[str, Agent], *, as_json: bool
) -> Drained:
    from holdfast import _assemble
    from holdfast.gateway.serve import serve as serve_until_told

    def started(serving: Serving) -> None:
        _tell_started(serving, agents, as_json=as_json)

    try:
        drained = await serve_until_told(where, settings, agents, started=started)
        _tell_left(drained, as_json=as_json)
        _leave_within(LEAVE_WITHIN_S, _code(drained))
        return drained
    finally:
        await _assemble.close_agents(agents.values())


def _code(drained: Drained) -> int:
    return 1 if drained.put_back else 0


def _leave_within(seconds: float, code: int) -> None:
    """
    Nothing of ours is open any more.  A model call that ignores its cancellation, or a tool's
    thread that hangs, would keep this process for ever: it ends without them.
    """

    def leave() -> None:
        _log.warning("a call of an agent did not end: leaving without it")
        sys.stdout.flush()
        os._exit(code)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


def _tell_started(serving: Serving, agents: dict[str, Agent], *, as_json: bool) -> None:
    if as_json:
        told = {"serving": serving.url, "state": serving.where, "agents": sorted(agents)}
        output.emit(
            {**told, "token_file": serving.token_file, "reconciled": serving.reconciled}
        )
        return
    output.say(f"serving {', '.join(sorted(agents))} on {serving.url}")
    output.say(f"  state  {serving.where}")
    output.say(f"  start  {serving.reconciled}")
    if serving.token_is_new:
        output.say(f"  token  {serving.token}")
        output.say(f"         (said this once; kept in {serving.token_file})")
        output.say(f"  page   {serving.url}/#token={serving.token}")
    elif serving.token_file:
        output.say(f"  token  in {serving.token_file}")
        output.say(f"  page   {serving.url}/")
    else:
        output.say("  token  as given")
        output.say(f"  page   {serving.url}/")
    sys.stdout.flush()


def _tell_left(drained: Drained, *, as_json: bool) -> None:
    if as_json:
        told = {
            "finished": drained.finished,
            "put_back": drained.put_back,
            "waiting": drained.waiting,
        }
        output.emit({"drained": told})
        return
    output.note(
        f"holdfast: drained: {drained.finished} turn(s) finished, {drained.put_back} put back,"
        f" {drained.waiting} waiting in the queue"
    )
