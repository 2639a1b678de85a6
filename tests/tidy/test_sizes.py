"""
A file is about one thing.  350 lines are the limit; a few larger ones are written down here
and may shrink, not grow (the ratchet).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src" / "holdfast"
LINES_MAX, FUNCTION_LINES_MAX = 350, 70
#: path → lines.  Lower a number when you can; a new entry needs a reason in its review.
LARGER: dict[str, int] = {}
MODULES = sorted(path.relative_to(SRC) for path in SRC.rglob("*.py"))


@pytest.mark.parametrize("where", MODULES, ids=str)
def test_files_and_functions_stay_small(where: Path) -> None:
    text = (SRC / where).read_text()
    allowed = LARGER.get(str(where), LINES_MAX)
    assert text.count("\n") <= allowed, f"{where}: over {allowed} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{where}: {node.name} has {lines} lines"


def test_the_ratchet_names_only_what_is_larger() -> None:
    for where, allowed in LARGER.items():
        lines = (SRC / where).read_text().count("\n")
        assert LINES_MAX < lines <= allowed, f"{where}: take it off the list, or lower it"
