"""A secret is made once, whole, and for its owner alone."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from holdfast.backends.files import secret
from holdfast.errors import StoreError


def test_of_several_first_starters_one_makes_it_and_all_agree(tmp_path: Path) -> None:
    starters = 8
    for number in range(20):
        path, barrier = str(tmp_path / str(number)), Barrier(starters)

        def start(path: str = path, barrier: Barrier = barrier) -> tuple[str, bool]:
            barrier.wait()
            return secret.published(path)

        with ThreadPoolExecutor(starters) as pool:
            found = [each.result() for each in [pool.submit(start) for _ in range(starters)]]
        assert len({value for value, _ in found}) == 1
        assert sum(made for _, made in found) == 1
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert len(list(tmp_path.iterdir())) == 20, "a stray was left"


def test_one_that_others_may_read_or_that_is_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("open to all\n")
    path.chmod(0o644)
    with pytest.raises(StoreError, match="others may read it") as caught:
        secret.published(str(path))
    assert "open to all" not in str(caught.value.to_json())
    path.write_text("\n")
    path.chmod(0o600)
    with pytest.raises(StoreError, match="empty"):
        secret.published(str(path))


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("secret of another\n")
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError):
        secret.published(str(tmp_path / "token"))
