"""
`holdfast`: finds the command, runs it, and turns whatever happens into an exit code.

    0 done · 1 the answer is no, or not healthy · 2 bad usage, input or configuration
    3 the store failed · 4 contention · 130 interrupted

Only the command that was named is imported, so that `holdfast --help` stays fast.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from holdfast import __version__
from holdfast.cli import output
from holdfast.errors import BadRequestError, HoldfastError

__all__ = ["main"]

INTERRUPTED: Final = 130
_HELP: Final = """\
Sessions of LLM agents: every accepted message answered, one writer at a time.

\b
Examples:
    holdfast send main "Hello there"
    holdfast sessions list
    holdfast turns list --session main

Exit codes: 0 done, 1 no or not healthy, 2 bad usage or input, 3 store, 4 contention,
130 interrupted.
"""
#: Command → what the list of commands says of it.  Each has a module of its name.
_COMMANDS: Final = {
    "serve": "Answer over HTTP, with a page and an OpenAI-compatible door.",
    "chat": "Talk in the terminal; several may share a session.",
    "send": "Send a message and print the reply.",
    "why": "Say who blocks whom in a session, and what will happen next.",
    "top": "Watch lanes, sessions, leases and waits, live.",
    "doctor": "Look for everything that is wrong with a store.",
    "race": "Let lanes meet on one session, and count what was lost.",
    "bench": "Measure this machine: lock, append, open, turn, admission, start.",
}
_GROUPS: Final = {
    "sessions": "List, show, verify, repair, export and import conversations.",
    "turns": "List, show, cancel messages; promote a salvaged reply.",
    "deliveries": "List what is owed to channels; drop what will never arrive.",
    "locks": "Show who has which write lock, and what a waiter would get.",
    "config": "Show and check the settings, and where each comes from.",
    "lab": "Try a runtime: stand-ins, and demonstrations of what went wrong.",
}
#: The base of every complaint about usage; typer exports only this one of its subclasses.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


@dataclass(frozen=True, slots=True)
class _Call:
    """What must be known of a command line even if it cannot be parsed."""

    words: list[str]  #: Without the options below, up to `--`.
    rest: list[str]  #: `--` and what follows.
    as_json: bool
    verbose: bool

    @classmethod
    def of(cls, argv: list[str]) -> _Call:
        end = argv.index("--") if "--" in argv else len(argv)
        words = [word for word in argv[:end] if word not in {"-v", "--verbose"}]
        return cls(words, argv[end:], "--json" in words, len(words) < end)

    @property
    def command(self) -> str | None:
        return next((word for word in self.words if not word.startswith("-")), None)


def main(argv: list[str] | None = None) -> int:
    """Run one command.  Returns its exit code; lets no error of ours through."""
    call = _Call.of(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(
        level=logging.INFO if call.verbose else logging.WARNING,
        format="holdfast: %(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        code = _run(call)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough.  What is left in the buffer must not raise again
        # while the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _run(call: _Call) -> int:
    try:
        command = typer.main.get_command(_built(call.command))
        words = [*call.words, *call.rest] or ["--help"]
        with command.make_context("holdfast", words) as context:
            command.invoke(context)
    except typer.Exit as ended:
        return ended.exit_code
    except HoldfastError as error:
        return output.fail(error, as_json=call.as_json)
    except (KeyboardInterrupt, typer.Abort):
        output.note("holdfast: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except _UsageError as error:
        return output.fail(_bad_usage(error, call), as_json=call.as_json)
    except Exception as error:  # noqa: BLE001  A bug ends in one line too.
        return _bug(error, call)
    return 0


def _bad_usage(error: Any, call: _Call) -> BadRequestError:
    known = call.command in {*_COMMANDS, *_GROUPS}
    about = f"holdfast {call.command} --help" if known else "holdfast --help"
    return BadRequestError(detail=str(error.format_message()).rstrip("."), hint=f"see {about}")


def _bug(error: Exception, call: _Call) -> int:
    if os.environ.get("HOLDFAST_DEBUG") == "1":
        traceback.print_exc()
    what = f"{type(error).__name__}: {error}"
    hint = "this is a bug; HOLDFAST_DEBUG=1 shows where"
    output.note(f"holdfast: {what}: {hint}")
    if call.as_json:
        output.emit({"error": {"code": "bug", "message": what, "hint": hint}})
    return 1


def _built(wanted: str | None) -> typer.Typer:
    """The whole command tree; but only the branch that is *wanted* is really there."""
    app = typer.Typer(
        help=_HELP,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name, told in _COMMANDS.items():
        run = _member(name, name) if name == wanted else _not_wanted
        app.command(name, short_help=told)(run)
    for name, told in _GROUPS.items():
        if name == wanted:
            app.add_typer(_member(name, "app"), name=name, rich_help_panel=None)
        else:
            app.command(name, short_help=told)(_not_wanted)
    app.command("version", short_help="Print the version.")(_version)
    return app


def _member(module: str, name: str) -> Any:
    return getattr(import_module(f"holdfast.cli.{module}"), name)


def _not_wanted() -> None:
    raise AssertionError("this command was not the one that was named")


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[  # noqa: ARG001  Seen before parsing, so that it may stand anywhere.
        bool, typer.Option("-v", "--verbose", help="Say more on stderr.  For every command.")
    ] = False,
) -> None:
    if version:
        _version()
    elif context.invoked_subcommand is None:
        raise BadRequestError(detail="no command was given", hint="see holdfast --help")


def _version(as_json: output.Json = False) -> None:
    """Print the version."""
    if as_json:
        output.emit({"version": __version__, "python": sys.version.split()[0]})
    else:
        output.say(f"holdfast {__version__}")
