"""`holdfast send`: one message in, its reply out."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast._core import keys
from holdfast.cli import output
from holdfast.errors import BadRequestError, TooLargeError

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast._runtime.embedded import Message
    from holdfast._runtime.receipts import Outcome, Receipt
    from holdfast._runtime.runtime import Holdfast
    from holdfast.ports import Agent
    from holdfast.types import Place, TurnEvent

__all__ = ["send"]

INTERRUPTED = 130
_ANSWERED = {"replied", "silent", "merged"}


def send(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Session key or alias, e.g. main.")],
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="The message; - reads it from stdin.")
    ],
    lane: Annotated[str, typer.Option(help="Class of concurrency and priority.")] = "user",
    policy: Annotated[str | None, typer.Option(help=output.POLICY_HELP)] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key and text are the same message.")
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Hand the message in, and do not wait.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Model for this message, e.g. openai-chat:gpt-4o-mini.")
    ] = None,
    source: Annotated[str, typer.Option(help="Where it came from; one word.")] = "cli",
    config: output.Config = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Send a message to a session, wait for the reply, print it.

    If no permanent runner serves the session's agent, this process answers itself, with the
    model named by --model or by the setting agents.<id>.model; without one, with a demo.

    \b
    holdfast send main "What is on today?"
    git diff | holdfast send main - --model openai-chat:gpt-4o-mini
    holdfast send main "nightly report" --lane cron --no-wait
    """
    from holdfast._runtime.embedded import Message

    settings = output.settings(config)
    keys.canonical(key)
    settings.lane(lane)
    settings.checked_policy(policy, lane)
    text = _from_stdin(settings.message_bytes_max) if text == "-" else text
    message = Message(key, text, lane, source, policy, idempotency_key, model)
    sending = _Sending(message, output.where(store), settings, as_json=as_json)
    with output.quiet_waits(when=output.is_terminal(sys.stderr)):
        try:
            code = asyncio.run(sending.hand_in() if no_wait else sending.run())
        except KeyboardInterrupt:
            code = sending.interrupted()
    raise typer.Exit(code)


def _from_stdin(limit: int) -> str:
    raw = sys.stdin.buffer.read(limit + 2)  # One more than allowed, and a last newline.
    if len(raw) > limit + 1:
        raise TooLargeError(what="a message (or more of it)", size=len(raw), limit=limit)
    try:
        return raw.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise BadRequestError(
            detail="what came on stdin is not UTF-8", hint="send text"
        ) from error


class _Sending:
    """One `send`, and what its user has been told so far.  It is its own `Told`."""

    def __init__(
        self, message: Message, where: str, settings: Settings, *, as_json: bool
    ) -> None:
        self._message, self._where = message, where
        self._as_json = as_json
        self._agent_id = keys.agent_of(keys.canonical(message.key))
        self._settings = settings
        told = settings.agents.get(self._agent_id)
        #: How the settings say that the agent is run, if they do.
        self._told = told if told is not None and (told.model or told.object) else None
        self._here = False  #: This process answers.
        self._receipt: Receipt | None = None
        self._sent = asyncio.Event()
        self._outcome: Outcome | None = None
        self._shown = ""  #: Text of the reply that the terminal shows already.
        self._status = False  #: Whether a line about waiting stands on the terminal.

    # ---------------------------------------------------------------------- the two ways

    async def run(self) -> int:
        """Wait for the outcome, answering here if nobody else does."""
        from holdfast import _assemble
        from holdfast._runtime import embedded

        agent = self._agent()
        try:
            async with _assemble.opened(self._where, self._settings) as hf:
                # A user's module that cannot be had is told before anything is sent; where
                # another process answers, it need not even be there.
                if isinstance(agent, _assemble.LateAgent) and not (
                    await hf.has_permanent_runner(self._agent_id)
                ):
                    await agent.ready()
                showing = asyncio.create_task(self._show(hf))
                try:
                    self._outcome = await embedded.answer(hf, self._message, agent, self)
                finally:
                    showing.cancel()
                    await asyncio.gather(showing, return_exceptions=True)
                    self._clear()
                    # What runs now is another's turn: it goes back to its place at once.
                    if self._outcome is None:
                        await hf.close(finish_s=0)
                code = self._tell(self._outcome)
                await hf.close(finish_s=0)
                return code
        finally:
            await _close(agent)

    async def hand_in(self) -> int:
        """Admit the message, and say who will answer it."""
        from holdfast import _assemble

        async with _assemble.opened(self._where, self._settings) as hf:
            self._receipt = receipt = await self._message.submit(hf)
            waiting_for = await self._who_answers(hf, receipt)
        if self._as_json:
            output.emit(
                {
                    "turn_id": receipt.turn_id,
                    "session_id": receipt.session_id,
                    "position": receipt.position,
                    "waiting_for": waiting_for,
                    "reason": self._reason(receipt, waiting_for),
                }
            )
        else:
            output.say(receipt.turn_id)
        return 0

    def _reason(self, receipt: Receipt, waiting_for: str | None) -> str:
        """A runner that has died may stand in the rows: what was found out counts."""
        if waiting_for == receipt.waiting_for:
            return receipt.reason
        from holdfast._core import words
        from holdfast.types import Place

        return words.reason(Place(receipt.position, waiting_for), agent=self._agent_id)

    async def _who_answers(self, hf: Holdfast, receipt: Receipt) -> str | None:
        from holdfast._assemble_reading import open_reading

        turn = await hf.store.control.turn(receipt.turn_id)
        if turn.ended:
            output.note(f"holdfast: this message has its outcome already: {turn.outcome}")
            return None
        loop = asyncio.get_running_loop()
        runners = await loop.run_in_executor(
            None, lambda: open_reading(self._where).runners(self._agent_id)
        )
        ahead = f", after {receipt.position} other(s)" if receipt.position else ""
        if not runners:
            output.note(
                f"holdfast: accepted{ahead}; no process answers for agent"
                f" {self._agent_id!r} now: it waits for a runner, or for the next"
                " `holdfast send` to this session"
            )
            return "no_runner"
        owner, permanent = runners[0]
        kind = "runner" if permanent else "a `send` that is waiting itself"
        output.note(
            f"holdfast: accepted{ahead}; process {owner.pid} on {owner.host} answers ({kind})"
        )
        return receipt.waiting_for

    def _agent(self) -> Agent:
        from holdfast import _assemble
        from holdfast._runtime.embedded import ModelSwitch
        from holdfast.agents.demo import DemoAgent

        if self._told is None:
            return ModelSwitch(DemoAgent(), _assemble.as_agent)
        _assemble.import_from_here()
        return _assemble.LateAgent(partial(_assemble.agent_from, self._agent_id, self._told))

    # ---------------------------------------------------------------------- being told

    def embedded(self) -> None:
        self._here = True
        self._say_demo()

    def accepted(self, receipt: Receipt) -> None:
        self._receipt = receipt
        self._sent.set()
        self._say_demo()
        if receipt.position:
            self._say_waiting(receipt.reason)

    def _say_demo(self) -> None:
        """Once it is sure that the message is taken, and that it is ours to answer."""
        asked = self._message.model or self._told
        if self._here and self._receipt is not None and not asked:
            setting = f"HOLDFAST_AGENTS__{self._agent_id.upper()}__MODEL"
            output.note(
                "holdfast: the built-in demo model answers; name a real one with --model or"
                f" {setting}, e.g. openai-chat:gpt-4o-mini"
            )

    def waiting(self, place: Place) -> None:
        if place.position or place.waiting_for:
            from holdfast._runtime.receipts import place_reason

            self._say_waiting(place_reason(place, self._agent_id, self._settings.lanes))
        else:
            self._clear()

    def _say_waiting(self, reason: str) -> None:
        if output.is_terminal(sys.stderr) and not self._shown:
            columns = shutil.get_terminal_size((80, 0)).columns
            line = output.cut(f"waiting: {reason}", max(8, columns - 1))  # It must be one row.
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._status = True

    def _clear(self) -> None:
        if self._status:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._status = False

    # ---------------------------------------------------------------------- what is shown

    async def _show(self, hf: Holdfast) -> None:
        """On a terminal, show the reply as it comes.  A view: its end costs nothing."""
        if self._as_json or not output.is_terminal(sys.stdout):
            return
        await self._sent.wait()
        assert self._receipt is not None
        async with aclosing(hf.follow(self._receipt.turn_id)) as events:
            async for event in events:
                self._show_event(event)

    def _show_event(self, event: TurnEvent) -> None:
        if event.kind == "text":
            self._clear()
            self._shown += event.data["text"]
            output.stream(event.data["text"])
        elif self._shown and event.kind == "attempt":
            self._shown = ""
            output.stream("\n")
            output.note("holdfast: asked again; the text above is void")

    def _tell(self, outcome: Outcome) -> int:
        answered = outcome.kind in _ANSWERED
        if self._as_json:
            told = {
                "turn_id": outcome.turn_id,
                "session_id": outcome.session_id,
                "outcome": outcome.kind,
                "text": outcome.text,
                "attempts": outcome.attempts,
                "waited_ms": outcome.waited_ms,
            }
            extra = {"reason": outcome.reason, "hint": outcome.hint}
            output.emit({**told, **{name: told for name, told in extra.items() if told}})
        elif outcome.text is not None:
            self._print_reply(outcome.text)
        if outcome.kind != "replied":
            why = f" ({outcome.reason})" if outcome.reason else ""
            hint = f": {outcome.hint}" if outcome.hint else ""
            output.note(f"holdfast: turn {outcome.turn_id} ended: {outcome.kind}{why}{hint}")
        return 0 if answered else 1

    def _print_reply(self, text: str) -> None:
        if self._shown and not text.startswith(self._shown):
            output.stream("\n")
            self._shown = ""
        output.say(text[len(self._shown) :])

    def interrupted(self) -> int:
        """What Ctrl-C has left behind."""
        if self._outcome is not None:
            return 0 if self._outcome.kind in _ANSWERED else 1
        if self._receipt is None:
            what, hint = "interrupted", "the message was probably not sent; see turns list"
        else:
            turn_id = self._receipt.turn_id
            what = f"interrupted; the message stays queued (turn {turn_id})"
            hint = f"a runner or the next send answers it; or: holdfast turns cancel {turn_id}"
        output.note(f"holdfast: {what}: {hint}")
        if self._as_json:
            told = {"code": "interrupted", "message": what, "hint": hint}
            if self._receipt is not None:
                told["turn_id"] = self._receipt.turn_id
            output.emit({"error": told})
        return INTERRUPTED


async def _close(agent: Agent) -> None:
    close: Any = getattr(agent, "aclose", None)
    if close is not None:
        await close()
