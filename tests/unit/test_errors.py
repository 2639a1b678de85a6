"""The error tree keeps its promises: codes, exits, pickles, JSON."""

from __future__ import annotations

import json
import pickle
from dataclasses import MISSING, fields
from typing import Any

import pytest

from holdfast import errors
from holdfast.errors import Advice, CoordinationError, HoldfastError, InputError, StoreError


def leaves(kind: type[HoldfastError] = HoldfastError) -> list[type[HoldfastError]]:
    # A chat tells what its server has refused, in the server's words and codes.
    echoes = kind.__module__.startswith("holdfast.cli._chat")
    found = [kind] if hasattr(kind, "code") and not echoes else []
    for below in kind.__subclasses__():
        found += leaves(below)
    return found


def made(kind: type[HoldfastError]) -> HoldfastError:
    samples: dict[str, Any] = {"str": "x", "int": 1, "float": 1.0, "list[str]": ["x"]}
    given = {
        f.name: samples[str(f.type).removesuffix(" | None")]
        for f in fields(kind)
        if f.default is MISSING
    }
    return kind(**given)


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
def test_every_error_survives_a_pickle_and_becomes_json(kind: type[HoldfastError]) -> None:
    error = made(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert again.to_json() == error.to_json()
    told = json.loads(json.dumps(error.to_json()))
    assert told["code"] == kind.code
    assert str(error) == told["message"] != ""


def test_codes_are_unique_and_names_end_in_error() -> None:
    codes = [kind.code for kind in leaves()]
    assert len(codes) == len(set(codes))
    assert all(kind.__name__.endswith("Error") for kind in leaves())


def test_no_coordination_error_advises_another_attempt_at_the_model() -> None:
    for kind in leaves(CoordinationError):
        assert kind.advice is not Advice.NEXT_ATTEMPT
        assert kind.exit_code == 4


def test_exits_follow_the_branches() -> None:
    assert {kind.exit_code for kind in leaves(InputError)} == {2}
    assert {kind.exit_code for kind in leaves(StoreError)} == {3}


def test_everything_public_is_listed() -> None:
    public = {n for n, v in vars(errors).items() if isinstance(v, type) and n.endswith("Error")}
    assert public <= set(errors.__all__)
