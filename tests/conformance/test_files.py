"""The files store keeps every promise that the runtime relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast._core.settings import Settings
from holdfast.backends.files.store import FilesStore
from holdfast.testing import conformance


@pytest.mark.parametrize("clause", conformance.CLAUSES, ids=conformance.name)
async def test_files(clause: Any, tmp_path: Path) -> None:
    await clause(lambda: FilesStore(str(tmp_path / "state"), Settings()))
