"""Agents by settings: what `MODULE:OBJECT` may name, and what is said when it may not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import _assemble
from holdfast._core.settings import AgentSettings, parse
from holdfast.agents import configured
from holdfast.agents.demo import DemoAgent
from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.errors import BadSettingError
from holdfast.ports import Agent

KEY = "agents.main.object"

THEIRS = """
import pydantic_ai
from pydantic_ai.models.test import TestModel

made = []
tool = pydantic_ai.Tool(lambda city: city, name="tool")
model = TestModel()
agent = pydantic_ai.Agent(model)
name = "openai-chat:m"
number = 5
nothing = ""

class Echo:
    closed = 0
    def __init__(self):
        made.append(self)
    async def respond(self, prompt, hook):
        yield None
    async def aclose(self):
        self.closed += 1

class Needs:
    def __init__(self, what):
        pass

echo = Echo()

def make():
    made.append("make")
    return echo

async def make_async():
    return echo

def make_wrongly():
    return 5

def fails():
    raise RuntimeError("no such luck")

def leaves():
    raise SystemExit(3)

def weather(city: str) -> str:
    return "sunny"

class inner:
    agent = agent
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of users' modules, importable; with `theirs` in it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "theirs.py").write_text(THEIRS)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def one(spec: str) -> Agent:
    return _assemble.agent_from("main", AgentSettings(object=spec))


def refused(spec: str) -> BadSettingError:
    with pytest.raises(BadSettingError) as caught:
        one(spec)
    assert (caught.value.key, caught.value.value) == (KEY, spec)
    return caught.value


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("agent", PydanticAgent), ("inner.agent", PydanticAgent), ("model", PydanticAgent),
        ("name", PydanticAgent),
    ],
)  # fmt: skip
def test_whatever_pydantic_ai_takes_is_an_agent(module: Path, name: str, kind: type) -> None:
    assert type(one(f"theirs:{name}")) is kind


def test_an_agent_behind_our_port_is_itself_and_a_maker_is_called_once(module: Path) -> None:
    echo = one("theirs:echo")
    theirs: Any = sys.modules["theirs"]
    assert echo is theirs.echo
    assert theirs.made == [echo]
    assert one("theirs:make") is echo
    assert theirs.made == [echo, "make"]
    new = one("theirs:Echo")  # A class has `respond` too, and is no agent for that.
    assert theirs.made == [echo, "make", new]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("theirs:number", "a pydantic-ai Agent"), ("theirs:nothing", "a model's name"),
        ("theirs:make_wrongly", "a pydantic-ai Agent"), ("theirs:made", "a model's name"),
        ("theirs:make_async", "not async"), ("theirs:agnt", "did you mean agent?"),
        ("theirs:agent.nowhere", "no 'nowhere' in it"), ("theirs", "MODULE:OBJECT"),
    ],
)  # fmt: skip
def test_what_is_no_agent_is_refused_by_the_settings_name(
    module: Path, spec: str, said: str
) -> None:
    with pytest.raises(BadSettingError) as caught:
        one(spec)
    assert caught.value.key == KEY
    assert said in caught.value.allowed


@pytest.mark.parametrize(
    ("name", "said", "cause"),
    [
        ("fails", "RuntimeError: no such luck (theirs.py:", RuntimeError),
        ("leaves", "SystemExit: 3", SystemExit),
        ("Needs", "missing 1 required positional argument", TypeError),
        ("weather", "missing 1 required positional argument", TypeError),
    ],
)
def test_a_maker_that_fails_is_told_with_its_cause(
    module: Path, name: str, said: str, cause: type
) -> None:
    error = refused(f"theirs:{name}")
    assert error.allowed.startswith("calling it failed: ")
    assert said in error.allowed
    assert "configured.py" not in error.allowed
    assert type(error.__cause__) is cause


@pytest.mark.parametrize(
    ("text", "said", "cause"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'", ImportError),
        ("x = 1\ny = x / 0", "ZeroDivisionError: division by zero (broken.py:2)", ArithmeticError),
        ("def", "SyntaxError", SyntaxError), ("raise SystemExit('bye')", "bye", SystemExit),
        ("import theirs.agent", "'theirs' is not a package", ImportError),
    ],
)  # fmt: skip
def test_a_module_that_fails_is_told_with_its_cause(
    module: Path, text: str, said: str, cause: type
) -> None:
    (module / "broken.py").write_text(text)
    error = refused("broken:x")
    assert error.allowed.startswith("importing broken failed: ")
    assert said in error.allowed
    assert isinstance(error.__cause__, cause)


def test_a_module_that_is_not_there(module: Path) -> None:
    for spec in ("nowhere:x", "nowhere.at.all:x", "theirs.more:x"):
        error = refused(spec)
        assert "there is no module" in error.allowed
        assert isinstance(error.__cause__, ModuleNotFoundError)


def test_a_missing_name_is_told_with_its_cause(module: Path) -> None:
    assert type(refused("theirs:agnt").__cause__) is AttributeError


def test_an_interrupt_is_nobodys_error(module: Path) -> None:
    (module / "broken.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        one("broken:x")


# ------------------------------------------------------------------ a model, with tools


def test_a_model_is_given_its_instructions_and_tools(module: Path) -> None:
    told = {
        "agents.main.model": "openai-chat:m", "agents.main.instructions": "Be brief.",
        "agents.main.tools": ["theirs:weather", "theirs:tool"], "agents.known": {},
        "agents.plain.model": "openai-chat:m", "agents.demo.model": "demo",
        "agents.own.object": "theirs:echo",
    }  # fmt: skip
    agents = _assemble.agents_from(parse(told))
    assert set(agents) == {"main", "plain", "demo", "own"}
    assert isinstance(agents["demo"], DemoAgent)
    main = agents["main"]
    assert isinstance(main, PydanticAgent)
    theirs: Any = sys.modules["theirs"]
    assert (main._given, main._instructions) == ("openai-chat:m", "Be brief.")
    assert main._tools == (theirs.weather, theirs.tool)


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ("theirs:number", "no function"), ("theirs:Echo", "no function"),
        ("theirs:nowhere", "no 'nowhere'"), ("nowhere:x", "no module"),
    ],
)  # fmt: skip
def test_a_tool_that_is_none_is_refused(module: Path, tool: str, said: str) -> None:
    told = AgentSettings(model="openai-chat:m", tools=("theirs:weather", tool))
    with pytest.raises(BadSettingError) as caught:
        _assemble.agent_from("ops", told)
    assert (caught.value.key, caught.value.value) == ("agents.ops.tools", tool)
    assert said in caught.value.allowed


def test_an_agent_that_is_only_known_cannot_be_made() -> None:
    with pytest.raises(BadSettingError, match=r"agents\.ops\.model"):
        _assemble.agent_from("ops", AgentSettings())


# ------------------------------------------------------------------------ open's agents


@pytest.mark.parametrize("given", [5, "", " ", None.__class__, DemoAgent, object(), ["demo"]])
def test_what_is_no_agent_is_refused_before_anything_is_asked(given: object) -> None:
    with pytest.raises(BadSettingError, match="agent"):
        _assemble.as_agent(given)


class Talkative:
    def __repr__(self) -> str:
        return "hush"


def test_what_is_no_agent_is_not_quoted() -> None:
    with pytest.raises(BadSettingError) as caught:
        _assemble.as_agent(Talkative())
    assert "hush" not in str(caught.value)
    assert "Talkative" in str(caught.value)


# --------------------------------------------------------------------------- late agents


class Closable:
    closed = 0

    async def respond(self, prompt: Any, hook: Any) -> AsyncGenerator[Any, None]:
        yield prompt

    async def aclose(self) -> None:
        self.closed += 1


async def test_a_late_agent_is_made_once_and_closed_if_it_was_made() -> None:
    made = list[Closable]()

    def make() -> Closable:
        made.append(Closable())
        return made[-1]

    unused = configured.LateAgent(make)
    await unused.aclose()
    assert made == []
    late = configured.LateAgent(make)
    prompt: Any = "hello"
    said = [[event async for event in late.respond(prompt, None)] for _ in range(2)]  # type: ignore[arg-type]
    assert said == [["hello"], ["hello"]]
    assert await late.ready() is made[0]
    await late.aclose()
    assert [each.closed for each in made] == [1]


# ------------------------------------------------------------------ where modules are found


def test_the_working_directory_is_searched_only_for_who_asks(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def agent(): return 'openai-chat:m'")
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]\n"
        "from holdfast import _assemble; from holdfast.errors import BadSettingError\n"
        "from holdfast._core.settings import AgentSettings\n"
        "told = AgentSettings(object='beside:agent')\n"
        "try: _assemble.agent_from('main', told)\n"
        "except BadSettingError as error: print(error.allowed)\n"
        "_assemble.import_from_here(); _assemble.import_from_here()\n"
        "print(type(_assemble.agent_from('main', told)).__name__)\n"
        "print(sys.path.count(sys.path[0]), 'pydantic_ai' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "there is no module 'beside'", "PydanticAgent", "1 False",
    ]  # fmt: skip
