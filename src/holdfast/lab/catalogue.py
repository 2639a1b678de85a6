"""Everything that `lab run` can run by a name alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.errors import NotFoundError
from holdfast.lab.proofs import PROOFS, run_proof
from holdfast.lab.scenarios import every
from holdfast.lab.scenarios.running import run_scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["checked", "listed", "run_named"]

#: Run by itself, with options of its own; see `soak.py`.
SOAK = "a minute of everything at once: kills, stops, bad models, bad channels, all policies"


def listed() -> list[tuple[str, str, str]]:
    """Name, where it was reported, what it is about: of each, in order."""
    proofs = [(name, proof.thread, proof.about) for name, proof in PROOFS.items()]
    incidents = [(name, " ".join(each.refs), each.there) for name, each in every().items()]
    return [*proofs, *incidents, ("soak", "", SOAK)]


def checked(names: Sequence[str]) -> list[str]:
    """
    *names*, with `incidents` spelt out.

    Raises:
        NotFoundError: there is none of that name.  Asked before anything has run.
    """
    incidents, found = every(), list[str]()
    for name in names:
        if name == "incidents":
            found.extend(incidents)
        elif name in PROOFS or name in incidents:
            found.append(name)
        else:
            hint = "see them all: holdfast lab list"
            raise NotFoundError(what="demonstration", name=name[:80], hint=hint)
    return found


def run_named(name: str, say: Callable[[str], None] | None) -> dict[str, Any]:
    """Run one; `passed` in what it returns is the verdict."""
    return run_proof(name, say) if name in PROOFS else run_scenario(name, say)
