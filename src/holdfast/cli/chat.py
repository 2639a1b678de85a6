"""`holdfast chat`: a conversation in the terminal; several may share a session."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast._core import keys
from holdfast.cli import output
from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from holdfast._core.settings import Settings
    from holdfast.cli._chat.door import Door
    from holdfast.cli._chat.talk import Sending
    from holdfast.cli._chat.told import Told

__all__ = ["chat"]

TOKEN_FILE: Final = "gateway.token"  # noqa: S105  A file's name.
TOKEN_BYTES_MAX: Final = 4_096
HISTORY_FILE: Final = "chat.history"


def chat(
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="Session key or alias.")] = "main",
    url: Annotated[
        str | None,
        typer.Option(help="Talk to this server (default: $HOLDFAST_URL) instead of a store."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            help="The server's token.  Better: $HOLDFAST_TOKEN, which no process list shows;"
            " for a server of this machine the one in its state directory is found."
        ),
    ] = None,
    lane: Annotated[str, typer.Option(help="Class of concurrency and priority.")] = "user",
    policy: Annotated[str | None, typer.Option(help=output.POLICY_HELP)] = None,
    source: Annotated[str, typer.Option(help="Where messages come from; one word.")] = "cli",
    model: Annotated[
        str | None, typer.Option(help="Model for these messages; not with --url.")
    ] = None,
    config: output.Config = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Talk to an agent, with everybody else in the session in view.

    Without --url it works on the state directory itself, and answers itself as long as no
    `holdfast serve` does.  Without a terminal every line of stdin is a message and its reply
    goes to stdout; exit code 0 if all were answered.  /help lists what else can be typed.

    \b
    holdfast chat
    holdfast chat agent:main:notes --model openai-chat:gpt-4o-mini
    holdfast chat --url https://agents.example.org
    printf 'one\\ntwo\\n' | holdfast chat --json
    """
    from holdfast.cli._chat.screen import Left, ended_by_signals
    from holdfast.cli._chat.talk import Sending

    settings = output.settings(config)
    # A flag says more than a variable does.
    url = url or (None if store else os.environ.get("HOLDFAST_URL")) or None
    where = output.where(store)
    sending = Sending(lane, source, policy, model)
    chatting = _Chatting(keys.canonical(key), where, settings, sending, as_json=as_json)
    if url is None:
        if token is not None:
            raise BadRequestError(
                detail="--token is for --url", hint="leave it out, or add --url"
            )
        settings.lane(lane)
        settings.checked_policy(policy, lane)
    try:
        with output.quiet_waits(), ended_by_signals():
            code = chatting.run(url, token)
    except Left as left:
        code = 128 + left.number
    raise typer.Exit(code)


class _Chatting:
    """Puts door, conversation and screen together, and takes them apart again."""

    def __init__(
        self, key: str, where: str, settings: Settings, sending: Sending, *, as_json: bool
    ) -> None:
        self._key, self._where, self._settings = key, where, settings
        self._sending, self._as_json = sending, as_json
        self._tell: Callable[[Told], None] = lambda _: None

    def run(self, url: str | None, token: str | None) -> int:
        from holdfast.cli._chat.screen import is_interactive

        if url is None:
            make, history = self._store_door, os.path.join(self._where, HISTORY_FILE)
            secret = None
        else:
            make, history, secret = self._server_door(url, token)
        if is_interactive() and not self._as_json:
            return self._with_person(make, history, secret)
        return self._with_pipe(make)

    # ------------------------------------------------------------------------- two ends

    def _with_person(self, make: Callable[[], Door], history: str, secret: str | None) -> int:
        from holdfast.cli._chat.history import History
        from holdfast.cli._chat.terminal import Terminal

        with _loop_thread() as loop, self._opened(make, loop) as door:
            _make_directory(os.path.dirname(history))
            terminal = Terminal(History(history, secret))
            self._tell = terminal.screen.tell
            with self._talking(door, loop) as talk:
                code = terminal.run(talk, loop, f"{self._key} at {door.name}.")
                for turn_id in talk.open_turns:
                    output.note(
                        f"holdfast: turn {turn_id} stays queued or goes on elsewhere;"
                        " its reply will be in the session"
                    )
        return code

    def _with_pipe(self, make: Callable[[], Door]) -> int:
        from holdfast.cli._chat.piped import Piped

        piped = Piped(as_json=self._as_json, line_bytes_max=self._settings.message_bytes_max)
        self._tell = piped.tell
        with (
            _loop_thread() as loop,
            self._opened(make, loop) as door,
            self._talking(door, loop) as talk,
        ):
            return piped.run(talk, loop)

    @contextmanager
    def _opened(
        self, make: Callable[[], Door], loop: asyncio.AbstractEventLoop
    ) -> Iterator[Door]:
        async def opened() -> Door:
            door = make()
            try:
                await door.open()
            except BaseException:
                await door.close()
                raise
            return door

        door = _wait(opened(), loop)
        try:
            yield door
        finally:
            _wait(door.close(), loop)

    @contextmanager
    def _talking(self, door: Door, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
        from holdfast.cli._chat.talk import Talk

        talk = Talk(door, self._tell, self._sending)
        try:
            yield talk
        finally:
            _wait(talk.close(), loop)

    # ------------------------------------------------------------------------ two doors

    def _store_door(self) -> Door:
        from holdfast.cli._chat.store import StoreDoor

        return StoreDoor(self._where, self._settings, self._key, demo=self._say_demo)

    def _server_door(
        self, url: str, token: str | None
    ) -> tuple[Callable[[], Door], str, str | None]:
        from holdfast.cli._chat import wire
        from holdfast.cli._chat.http import HttpDoor

        if self._sending.model is not None:
            raise BadRequestError(
                detail="--model is not for --url", hint="the server's settings name its models"
            )
        url = wire.base_url(url)
        secret = token or os.environ.get("HOLDFAST_TOKEN")
        if secret is None and wire.is_loopback(url):
            secret = _found_token(os.path.join(self._where, TOKEN_FILE))
        if secret is not None and not (secret.isascii() and secret.isprintable()):
            raise BadRequestError(
                detail="the token is not printable ASCII", hint="copy it again"
            )
        if secret is not None and url.startswith("http://") and not wire.is_loopback(url):
            output.note("holdfast: this connection is not encrypted: others may read the token")

        def make() -> Door:
            return HttpDoor(url, self._key, secret, note=self._note)

        return make, os.path.join(_state_home(), HISTORY_FILE), secret

    def _note(self, text: str) -> None:
        from holdfast.cli._chat.told import Note

        self._tell(Note(text))

    def _say_demo(self) -> None:
        agent_id = keys.agent_of(self._key)
        setting = f"HOLDFAST_AGENTS__{agent_id.upper()}__MODEL"
        self._note(
            "the built-in demo model answers; name a real one with --model or"
            f" {setting}, e.g. openai-chat:gpt-4o-mini"
        )


@contextmanager
def _loop_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own: the main thread reads lines, and blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="chat", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        _wait(loop.shutdown_asyncgens(), loop)
        _wait(loop.shutdown_default_executor(), loop)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _wait(doing: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
    """The result of *doing* in the loop's thread; a Ctrl-C ends it there, too."""
    asked = asyncio.run_coroutine_threadsafe(doing, loop)
    try:
        return asked.result()
    except KeyboardInterrupt:
        asked.cancel()
        raise


def _found_token(path: str) -> str | None:
    """The token of a server of this machine.  One that cannot be read is as good as none."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(TOKEN_BYTES_MAX).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _state_home() -> str:
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(
        os.path.expanduser("~"), ".local", "state"
    )
    return os.path.join(base, "holdfast")


def _make_directory(path: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        output.note(f"holdfast: {path}: {error.strerror}; what you type is not kept")
    sys.stdout.flush()
