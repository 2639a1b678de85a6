"""The README's commands, run as they stand there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.serving import Served

README = (Path(__file__).parents[2] / "README.md").read_text()
HTTP_DOC = (Path(__file__).parents[2] / "docs" / "http.md").read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """In a directory where `state` is where the README says."""
    with Served(tmp_path_factory.mktemp("readme") / "state") as server:
        yield server


def commands() -> list[str]:
    """What follows a `$` in the section about serving, continued lines included."""
    section = README.partition("## Serve your own agent")[2].partition("\n## ")[0]
    return re.findall(r"^\$ ((?:TOKEN|curl)(?:.*\\\n)*.*)$", section, re.MULTILINE)


def test_curl_as_the_readme_shows_it(served: Served) -> None:
    token, *curls = commands()
    assert len(curls) == 3
    said = []
    for curl in curls:
        script = f"{token}\n{curl}".replace(
            "localhost:8787", served.url.removeprefix("http://")
        )
        told = subprocess.run(
            ["bash", "-ec", script], capture_output=True, text=True, timeout=60,
            cwd=served.state.parent, check=True,
        )  # fmt: skip
        said.append(told.stdout)
    waited, streamed, entries = said
    assert '"outcome":"replied","text":"You said: hello' in waited
    assert streamed.startswith('data: {"id":"chatcmpl-')
    assert '"delta":{"content":"You "}' in streamed
    assert streamed.rstrip().endswith("data: [DONE]")
    assert entries.startswith('{"entries":[{"cursor":"1.')
    assert "You said: and again" in entries


def test_the_paths_in_the_docs_are_those_of_the_interface() -> None:
    from holdfast.gateway.app import API

    block = HTTP_DOC.partition("```\n")[2].partition("\n```")[0]
    told = set()
    for line in block.splitlines():
        methods, *paths = line[:42].replace("·", " ").split()
        told |= {
            (methods, path.partition("?")[0].replace("{id}", "{turn_id}")) for path in paths
        }
    there = {(m, r.path) for r in API for m in (r.methods or set()) - {"HEAD"}}
    assert told == there | {("GET", "/")}


def test_an_agent_of_ones_own_is_served_as_the_readme_shows(tmp_path: Path) -> None:
    """Three lines and a command; the agent is pydantic-ai's, its model the one for tests."""
    section = README.partition("## Serve your own agent")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    code = code.replace('"openai-chat:gpt-4o-mini"', '"test"').replace(
        "tools=[...]", "tools=[]"
    )
    (tmp_path / "my_agents.py").write_text(code)
    [command] = re.findall(r"^\$ holdfast serve (--agent .*)$", section, re.MULTILINE)
    with Served(tmp_path / "state", *command.split(), cwd=tmp_path) as served:
        with served.client() as http:
            told = http.post(
                "/v1/sessions/main/messages", params={"wait": 30}, json={"text": "hello"}
            ).json()
    assert told["outcome"] == "replied"
    assert told["text"]
