"""Whatever the lock code keeps per process, the simulator knows of."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("greenlet", reason="the simulator needs greenlet (the extra `sim`)")

from holdfast.backends.files import fs
from holdfast.testing._sim_kernel import Kernel
from holdfast.testing._sim_process import OWN, SHARED

FILES = Path(fs.__file__).parent
#: Modules that a simulated process runs.
RUN = (
    "lock.claim", "lock.climb", "transcript.digest", "fs", "lock.gate", "transcript.held",
    "lock.hold", "identity", "lock.latch", "lock.line", "transcript.loaded", "medium",
    "lock.own", "lock.pump", "lock.spare", "lock.standing", "lock.tally", "lock.tenure",
    "transcript.transcripts", "lock.watchdog", "lock.witness", "lock.write_lock",
)  # fmt: skip


def changed_by_functions(name: str) -> set[str]:
    """Names at the top of a module that its functions bind again, or that hold a container."""
    tree = ast.parse((FILES / f"{name.replace('.', '/')}.py").read_text())
    bound = {
        each for node in ast.walk(tree) if isinstance(node, ast.Global) for each in node.names
    }
    module = import_module(f"holdfast.backends.files.{name}")
    kept = {each for each, value in vars(module).items()
            if each.startswith("_") and not each.startswith("__") and each.islower()
            and isinstance(value, list | dict | set)}  # fmt: skip
    return bound | kept


@pytest.mark.parametrize("name", RUN)
def test_every_global_of_a_process_is_exchanged_or_explained(name: str) -> None:
    known = {each for module, each in (*OWN, *SHARED) if module == name}
    assert changed_by_functions(name) <= known


def test_the_table_names_nothing_that_is_gone() -> None:
    for module, name in (*OWN, *SHARED):
        assert hasattr(import_module(f"holdfast.backends.files.{module}"), name), (module, name)


def test_the_simulated_kernel_plays_every_entry_of_the_table() -> None:
    missing = [name for name in vars(fs.Fs()) if not hasattr(Kernel, name)]
    assert not missing, f"teach _sim_kernel.py: {missing}"


def test_importing_the_testing_package_stays_cheap() -> None:
    import subprocess
    import sys

    code = "import sys, holdfast.testing; print('greenlet' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "False", done.stderr
