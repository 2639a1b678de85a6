"""`holdfast lab`: what one wants beside a runtime in order to try it."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from holdfast.cli import output
from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from types import FrameType

    from holdfast.testing.model_server import Step

__all__ = ["app"]

app = typer.Typer(
    name="lab", help="Try a runtime: stand-ins, and demonstrations.", no_args_is_help=True
)

# Lines of 76 characters: a terminal shows them as they stand here.
_SCRIPT_HELP = """\
Stand in for OpenAI, Anthropic and Google on loopback, without a model.

Prints its URL when it is ready; stops on SIGINT and SIGTERM.  Use it with

    OPENAI_BASE_URL=<URL> OPENAI_API_KEY=any    and model openai-chat:any

or with anthropic:any or google:any, and the variables that --json prints.

Every answer is "reply to: <last user text>", unless a script says otherwise.
A script holds one JSON object a line, and each request uses up one:

\b
    {"tokens": ["Hel", "lo"], "delay_s": 0.1, "first_delay_s": 1}
    {"tool": "add", "arguments": {"a": 2, "b": 3}, "fragments": 4}
    {"tool": "add", "arguments": {"a": 2}, "also": [{"tool": "now"}]}
    {"error": "rate_limit", "retry_after": "1"}
    {"error": "overloaded", "end": "error", "after": 2}
    {"end": "hang", "headers": false}
    {"end": "drop", "after": 2, "when": "weather", "repeat": true}

\b
error    unauthorized, rate_limit, quota, server_error, unavailable,
         overloaded, context_length or bad_request
end      done, eof (no finish reason), drop (the connection), hang,
         garbage (not JSON) or error (inside the stream); after so many
         tokens, by default after all
headers  false: drop or hang before the first byte
frame    what garbage sends
also     further tool calls in the same message
finish   stop, length, content_filter, or the provider's own word
when     only for requests whose last user text contains this
repeat   true: not used up by a request
"""


@app.command("list")
def list_(as_json: output.Json = False) -> None:
    """List what `lab run` can run."""
    from holdfast.lab.catalogue import listed

    if as_json:
        names = ("name", "refs", "about")
        output.emit({"scenarios": [dict(zip(names, each, strict=True)) for each in listed()]})
        return
    rows = ((name, output.cut(refs, 30), output.cut(about)) for name, refs, about in listed())
    output.table(("NAME", "REPORTED IN", "ABOUT"), rows)


@app.command()
def run(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="See `lab list`.")],
    processes: Annotated[int, typer.Option(help="soak: runners.")] = 3,
    sessions: Annotated[int, typer.Option(help="soak: conversations.")] = 12,
    duration: Annotated[str, typer.Option(help="soak: how long the storm lasts.")] = "60s",
    seed: Annotated[
        int | None, typer.Option(min=0, help="soak: the same seed is the same plan.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="soak: soak.json, soak.md.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """
    Run demonstrations and incidents on this code: what happened there, what happens here.

    Exit code 1 unless each of them passes.  With --json one object a line.

    soak, alone, is real processes that are killed and stopped at random, with models and
    channels that misbehave, and then a look at what became of every message.

    \b
    holdfast lab run proof-same-file
    holdfast lab run incidents --json
    holdfast lab run soak --processes 4 --sessions 20 --duration 10m --report soak
    """
    from holdfast.cli import lab_soak
    from holdfast.lab.catalogue import checked, run_named

    if names == [lab_soak.NAME]:
        lab_soak.soak(
            processes=processes, sessions=sessions, duration=duration, seed=seed, report=into,
            as_json=as_json,
        )  # fmt: skip
        return
    passed = True
    for name in checked(names):
        found = run_named(name, None if as_json else output.say)
        passed = passed and found["passed"]
        if as_json:
            output.emit(found)
    if not passed:
        raise typer.Exit(1)


@app.command()
def report(
    since: Annotated[
        str | None,
        typer.Option(metavar="AGE|MOMENT", help="Only from then on: 90m, 2h, 3d, RFC 3339."),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it, too, as SVG.")
    ] = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Say from a store's event log which lane waited for which, how often and how long; what
    was taken over, reclaimed, aborted, merged, pre-empted, adopted; which sessions are worst.

    \b
    holdfast lab report
    holdfast lab report --since 2h --svg report.svg
    """
    from holdfast.lab.report import from_store, print_report, since_of
    from holdfast.lab.report_svg import drawn

    told = from_store(output.opened(store), since_of(since))
    if svg is not None:
        try:
            svg.write_text(drawn(told), encoding="utf-8")
        except OSError as error:
            hint = "name a file that can be written"
            raise BadRequestError(detail=f"{svg}: {error.strerror}", hint=hint) from error
    if as_json:
        output.emit(told)
    else:
        print_report(told, output.say, output.table)


@app.command("model-server", help=_SCRIPT_HELP)
def model_server(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 = a free one.")] = 0,
    script: Annotated[Path | None, typer.Option(help="File of steps, JSON lines.")] = None,
    token_delay: Annotated[
        float, typer.Option(help="Seconds between two tokens, where a step does not say.")
    ] = 0.02,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print {"url": …, "environment": {…}}.')
    ] = False,
) -> None:
    from holdfast.testing.model_server import ModelServer

    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        stopped.set()

    # Before the line that says it is ready: whoever reads it may signal at once.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    server = ModelServer(_read(script), token_delay_s=token_delay, port=port)
    try:
        server.start()
    except OSError as error:
        _fail(f"port {port}: {error.strerror or error}", exit_code=1)
    try:
        told = {"url": server.base_url, "environment": server.environment}
        print(json.dumps(told) if as_json else server.base_url, flush=True)
        stopped.wait()
    finally:
        server.stop()


def _read(script: Path | None) -> list[Step]:
    from holdfast.testing.model_server import read_script

    if script is None:
        return []
    try:
        return read_script(script.read_text(), name=str(script))
    except OSError as error:
        _fail(f"{script}: {error.strerror or error}", exit_code=2)
    except BadRequestError as error:
        _fail(str(error), exit_code=error.exit_code)


def _fail(message: str, *, exit_code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(exit_code)
