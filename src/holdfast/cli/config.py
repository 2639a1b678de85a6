"""`holdfast config`: every setting, what it is here, where that comes from, what is wrong."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output
from holdfast.errors import BadRequestError, BadSettingError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast._core.settings import Problem, Settings
    from holdfast.config import Loaded

__all__ = ["app"]

SET: Final = "(set)"  #: All that is ever shown of a secret.

app = typer.Typer(
    help="""\
The settings: show, schema, check.

\b
holdfast config show
holdfast config check holdfast.toml
holdfast config schema > holdfast.schema.json

A file (--config FILE, $HOLDFAST_CONFIG or ./holdfast.toml), the environment
(HOLDFAST_TURN__QUEUE_MAX for turn.queue_max), flags: later wins.
"""
)


@app.command()
def show(config: output.Config = None, as_json: output.Json = False) -> None:
    """Show every setting, and where its value comes from.  * = not the default."""
    from holdfast.config import file_for

    file = file_for(config)
    output.settings(config)  # Refuses what is wrong, and tells of older names.
    rows = list(_rows(_looked(file)))
    if as_json:
        output.emit({"file": file, "settings": rows})
        return
    output.table(
        ("", "KEY", "VALUE", "FROM"),
        (
            ("*" if row["changed"] else " ", row["key"], _told(row["value"]), row["source"])
            for row in rows
        ),
    )


@app.command()
def schema(as_json: output.Json = False) -> None:
    """Print the JSON Schema (draft 2020-12) of holdfast.toml."""
    from holdfast._core.settings_schema import schema as made

    if as_json:
        output.emit(made())
    else:
        output.say(json.dumps(made(), indent=2, ensure_ascii=False))


@app.command()
def check(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Only this; else what would be read.")
    ] = None,
    agents: Annotated[
        bool, typer.Option("--agents", help="Import the agents' own code as well.")
    ] = False,
    config: output.Config = None,
    as_json: output.Json = False,
) -> None:
    """
    Look for everything that is wrong.  Exit code 2 if something is.

    With FILE, that file alone; without, the file and the environment that a command would go
    by.  No code of agents is run unless --agents asks for it.
    """
    from holdfast.config import file_for, look

    if file is not None and config is not None:
        raise BadRequestError(detail="a FILE and --config", hint="name one file")
    path = file if file is not None else file_for(config)
    problems = list[dict[str, Any]]()
    try:
        loaded = look(file=path) if file is not None else _looked(path)
    except (BadRequestError, TooLargeError) as error:  # Not TOML; a finding like others.
        problems.append({"source": path, "key": None, "value": None, "allowed": str(error)})
    else:
        problems += [_problem(each) for each in loaded.problems]
        for notice in loaded.notices:
            output.note(f"holdfast: {notice}")
        if agents:
            problems += _of_agents(loaded.settings)
    if as_json:
        output.emit({"ok": not problems, "file": path, "problems": problems})
    else:
        for problem in problems:
            output.say(_line(problem))
        if not problems:
            output.say(output.paint("ok", "green"))
    if problems:
        raise typer.Exit(2)


def _looked(file: str | None) -> Loaded:
    from holdfast.config import look

    return look(file=file, environment=os.environ)


# --------------------------------------------------------------------------------- show


def _rows(loaded: Loaded) -> Iterator[dict[str, Any]]:
    """One row a setting: all of the table, all lanes, and what is set about agents."""
    from holdfast._core.settings import LANES, default_of
    from holdfast._core.settings_table import FAMILIES, KEYS, Kind

    def row(name: str, value: Any, default: Any, *, secret: bool = False) -> dict[str, Any]:
        given = loaded.won.get(name)
        source = "default" if given is None else given.source
        if given is not None and given.called and given.called not in source:
            source += f" ({given.called})"
        return {
            "key": name,
            "value": SET if secret and value is not None else value,
            "default": default,
            "changed": value != default,
            "source": source,
        }

    for name, key in KEYS.items():
        value = getattr(loaded.settings, key.field)
        yield row(name, value, default_of(name), secret=key.kind is Kind.SECRET)
    for member, lane in loaded.settings.lanes.items():
        for last in FAMILIES["lanes"].keys:
            default = getattr(LANES[member], last) if member in LANES else None
            yield row(f"lanes.{member}.{last}", getattr(lane, last), default)
    for name, value in _members(loaded):
        yield row(name, value, None)


def _members(loaded: Loaded) -> Iterator[tuple[str, Any]]:
    """What is set about agents, people and channels: there are no defaults."""
    from holdfast._core.settings_table import FAMILIES, Kind

    for member, agent in loaded.settings.agents.items():
        for last in FAMILIES["agents"].keys:
            if f"agents.{member}.{last}" in loaded.won:
                yield f"agents.{member}.{last}", getattr(agent, last)
        if agent.model is None and agent.object is None:
            yield f"agents.{member}", None
    for member, person in loaded.settings.identities.items():
        yield f"identities.{member}.peers", person.peers
    for member, channel in loaded.settings.channels.items():
        for last, key in FAMILIES["channels"].keys.items():
            value = getattr(channel, last)
            if value is not None and key.kind is Kind.SECRET:
                value = SET
            elif value is not None and key.private:
                value = _host_of(value)
            yield f"channels.{member}.{last}", value


def _host_of(url: str) -> str:
    """*url*, without what may be somebody's token."""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    shown = f"{scheme}://{authority.rpartition('@')[2]}"
    return url if url.rstrip("/") == shown else f"{shown}/…"


def _told(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list() | tuple():
            return ", ".join(map(str, value))
        case None:
            return ""
        case _:
            return output.cut(str(value))


# -------------------------------------------------------------------------------- check


def _problem(problem: Problem) -> dict[str, Any]:
    return _row(problem.given.source, problem.error)


def _row(source: str, error: BadSettingError) -> dict[str, Any]:
    return {
        "source": source or None,
        "key": error.key,
        "value": error.value,
        "allowed": error.allowed,
    }


def _line(problem: dict[str, Any]) -> str:
    if problem["key"] is None:
        return output.cut(problem["allowed"], 400)
    source = f"{problem['source']}: " if problem["source"] else ""
    told = f"{source}{problem['key']} = {problem['value']!r}: {problem['allowed']}"
    return output.cut(told, 600)


def _of_agents(settings: Settings) -> list[dict[str, Any]]:
    """What is wrong with the agents themselves.  Makes them, and lets them go again."""
    import asyncio

    from holdfast import _assemble

    _assemble.import_from_here()
    problems, made = list[dict[str, Any]](), list[Any]()
    for agent_id, told in settings.agents.items():
        if told.model is None and told.object is None:
            continue
        try:
            made.append(_assemble.agent_from(agent_id, told))
        except BadSettingError as error:
            problems.append(_row("", error))
    asyncio.run(_assemble.close_agents(made))
    return problems
