"""
Shipped for users' own tests; each name is loaded on first use.

    ModelServer     a real HTTP server that answers as OpenAI, Anthropic and Google, by a script
    ScriptedModel   an agent without HTTP that says what it was told to
    Receiver        a real HTTP receiver of webhooks that drops, delays and fails, by a script
    conformance     the suite that every store must pass
    channels        the suite that every channel must pass
    sim             the real lock and turn code in a simulated world; a seed is a run
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.testing import channels as channels
    from holdfast.testing import conformance as conformance
    from holdfast.testing import sim as sim
    from holdfast.testing.model_server import ModelServer as ModelServer
    from holdfast.testing.model_server import Step as Step
    from holdfast.testing.receiver import Answer as Answer
    from holdfast.testing.receiver import Receiver as Receiver
    from holdfast.testing.scripted import ScriptedModel as ScriptedModel

__all__ = [
    "Answer",
    "ModelServer",
    "Receiver",
    "ScriptedModel",
    "Step",
    "channels",
    "conformance",
    "sim",
]

_WHERE = {
    "Answer": "holdfast.testing.receiver",
    "ModelServer": "holdfast.testing.model_server",
    "Receiver": "holdfast.testing.receiver",
    "ScriptedModel": "holdfast.testing.scripted",
    "Step": "holdfast.testing.model_server",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415

    if name in {"channels", "conformance", "sim"}:
        return import_module(f"holdfast.testing.{name}")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'holdfast.testing' has no attribute {name!r}")
