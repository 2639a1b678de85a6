"""
The architecture, as a test.

A floor imports the floors below it and nothing else; names on one line do not import each
other.  `_core` imports nothing that can block, sleep, print or tell the time.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "holdfast"
FLOORS = [  # Lowest first.
    {"errors", "types", "_points", "_stamps"},
    {"_core"},
    {"ports"},
    {"_runtime", "backends"},
    {"agents", "channels", "config"},
    {"_assemble", "_assemble_attempt", "_assemble_reading", "_assemble_tending"},
    {"gateway", "testing"},
    {"lab"},
    {"cli"},
    {"__main__", "__init__"},
]
PURE = {
    "__future__", "collections", "contextlib", "dataclasses", "enum", "functools", "graphlib",
    "hashlib", "holdfast", "itertools", "json", "math", "msgspec", "re", "string", "typing", "unicodedata",
}  # fmt: skip
MODULES = sorted(path.relative_to(SRC) for path in SRC.rglob("*.py"))


def floor(name: str) -> int:
    found = next((i for i, names in enumerate(FLOORS) if name in names), None)
    assert found is not None, f"{name} is on no floor: say where it belongs"
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(level=level) if level:
                raise AssertionError("a relative import hides the floor")
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                if module == "holdfast":
                    modules = (alias.name for alias in names if alias.name != "__version__")
                    yield from (f"holdfast.{module}" for module in modules)
            case ast.Import(names=names):
                yield from (alias.name for alias in names)


def room(where: Path) -> str:
    return where.parts[0].removesuffix(".py")


@pytest.mark.parametrize("where", MODULES, ids=str)
def test_imports_point_downwards(where: Path) -> None:
    here = room(where)
    if here == "__init__":
        return
    for module in imports(ast.parse((SRC / where).read_text())):
        root, _, rest = module.partition(".")
        there = rest.partition(".")[0]
        if here == "_core":
            assert root in PURE, f"{where}: _core may not import {module}"
        if root == "holdfast" and there not in {here, ""}:
            downwards = floor(there) < floor(here) or (floor(here), floor(there)) == (0, 0)
            assert downwards, f"{where}: {module} is not below it"


def test_no_store_knows_another() -> None:
    for where in MODULES:
        if where.parts[0] != "backends" or len(where.parts) < 3:
            continue
        for module in imports(ast.parse((SRC / where).read_text())):
            if module.startswith("holdfast.backends."):
                assert module.split(".")[2] == where.parts[1], f"{where} imports {module}"


def test_only_the_assembly_names_store_agent_and_runtime_together() -> None:
    together = {"backends", "agents", "_runtime"}
    for where in MODULES:
        rooms = {m.split(".")[1] for m in imports(ast.parse((SRC / where).read_text()))
                 if m.startswith("holdfast.")}  # fmt: skip
        if together <= rooms:
            assert room(where) in {"_assemble", "lab", "testing", "cli", "__init__"}, where


def test_the_oracle_can_fail() -> None:
    bad = ast.parse("import asyncio\nfrom holdfast._runtime import runner")
    assert {"asyncio", "holdfast._runtime"} <= set(imports(bad))
    assert "asyncio" not in PURE
    assert floor("_runtime") > floor("_core")
