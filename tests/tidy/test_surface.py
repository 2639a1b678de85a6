"""The public surface is curated: every name listed, every name there, nothing by accident."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "holdfast"
MODULES = sorted(
    str(path.relative_to(SRC.parent).with_suffix("")).replace("/", ".")
    for path in SRC.rglob("*.py")
    if path.name not in {"__init__.py", "__main__.py"}
)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_what_it_exports(name: str) -> None:
    tree = ast.parse((SRC.parent / (name.replace(".", "/") + ".py")).read_text())
    assert ast.get_docstring(tree), f"{name} does not say what it is about"
    module = import_module(name)
    for exported in getattr(module, "__all__", ()):
        assert hasattr(module, exported), f"{name}.__all__ names {exported}"


def test_the_public_names_are_there_and_are_all() -> None:
    for name in holdfast.__all__:
        assert getattr(holdfast, name) is not None
    assert set(dir(holdfast)) == set(holdfast.__all__)
    with pytest.raises(AttributeError):
        holdfast.nonsense  # noqa: B018


def test_importing_is_cheap() -> None:
    """By what is loaded, not by a stopwatch: timings are benchmarks."""
    code = "import sys, holdfast; print(sorted(m for m in sys.modules if m[0] != '_'))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for heavy in ("asyncio", "sqlite3", "msgspec", "pydantic_ai", "starlette", "typer", "rich"):
        assert f"'{heavy}'" not in loaded.stdout, f"import holdfast loads {heavy}"


def test_help_loads_no_model_client() -> None:
    code = (
        "import sys; sys.argv = ['holdfast', '--help']\n"
        "from holdfast.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('pydantic_ai', 'openai', 'starlette', 'sqlite3') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.rstrip().endswith("[]"), run.stdout[-200:]


def test_no_file_of_ours_names_a_package_index() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    words = [b"pypi" + b".org", b"pythonhosted" + b".org", b"npmjs" + b".org"]
    for name in tracked:
        data = (ROOT / name).read_bytes()
        assert not any(word in data for word in words), name
