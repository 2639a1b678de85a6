"""The picture of the machines is the machines."""

from __future__ import annotations

from pathlib import Path

from holdfast.lab import machines

PAGE = Path(__file__).parents[2] / "docs" / "machines.md"


def test_the_page_is_drawn_from_the_tables() -> None:
    assert PAGE.read_text() == machines.document(), (
        "python -m holdfast.lab.machines > docs/machines.md"
    )
