"""Settings that every member of a kind has: lanes, agents, people, channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast._core.settings_kinds import Family, Form, Key, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AMBIGUOUS", "CHANNEL_KINDS", "FAMILIES", "POLICIES", "PRIORITY_MOST"]

#: What a message to a busy session may do: `_core/policies.py`.
POLICIES: Final = ("enqueue", "collect", "steer", "interrupt", "reject", "rollback")
PRIORITY_MOST: Final = 100  #: What every waiting turn reaches in the end.
CHANNEL_KINDS: Final = ("webhook",)
AMBIGUOUS: Final = ("resend", "give_up")

_MODEL: Final = Form(r"[!-~]([ -~]*[!-~])?", "a model's name like openai-chat:gpt-4o-mini")
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*"
_OBJECT: Final = Form(f"{_NAME}:{_NAME}", "MODULE:OBJECT like app:agent")
_PEER: Final = Form(r"[!-+\--~]+", "CHANNEL:PEER like telegram:4711")
_TOOL: Final = Form(f"{_NAME}:{_NAME}", "MODULE:FUNCTION like app:weather")
_URL: Final = Form(r"https?://[!-~]+", "a URL like https://example.org/hook")
_SIGNING: Final = Form(
    r"whsec_[A-Za-z0-9+/]{32,}={0,2}", "whsec_ and at least 24 bytes in base64"
)
_KEY: Final = Form(r"main|(agent|hook):[^\s/\\]+", "a session's key like agent:main:main")
_SENDER: Final = Form(
    r"[^\s,\x00-\x1f\x7f]([^,\x00-\x1f\x7f]*[^\s,\x00-\x1f\x7f])?",
    "a sender's name or id, without commas",
)
_AGENT: Final = Form(r"[a-z0-9][a-z0-9_-]{0,63}", "an agent's id, lower case, like main")

FAMILIES: Final[Mapping[str, Family]] = {
    "lanes": Family(
        "<name>",
        Form(r"[a-z][a-z0-9_-]{0,63}", "a lane's name is lower case, like cron"),
        {
            "concurrency": Key(
                "concurrency", Kind.INTEGER, "turns of this lane at once, over the whole store"
            ),
            "priority": Key(
                "priority", Kind.INTEGER, "higher runs first", most=PRIORITY_MOST
            ),
            "policy": Key(
                "policy", Kind.CHOICE, "as turn.policy, for this lane", choices=POLICIES
            ),
        },
    ),
    "agents": Family(
        "<id>",
        Form(r"[a-z0-9][a-z0-9_-]{0,63}", "an agent's id is lower case, like main"),
        {
            "model": Key("model", Kind.TEXT, "the model that answers", form=_MODEL),
            "instructions": Key(
                "instructions", Kind.TEXT, "what the model is told before every conversation"
            ),
            "tools": Key("tools", Kind.TEXTS, "functions the model may call", form=_TOOL),
            "object": Key(
                "object", Kind.TEXT, "an agent of your own, instead of the three others",
                form=_OBJECT,
            ),
        },
    ),
    "identities": Family(
        "<name>",
        Form(r"[a-z0-9][a-z0-9_-]{0,63}", "a person's name is lower case, like ann"),
        {
            "peers": Key(
                "peers", Kind.TEXTS, "who is this person: one conversation for all of them",
                form=_PEER,
            ),
        },
    ),
    "channels": Family(
        "<name>",
        Form(r"[a-z][a-z0-9_-]{0,63}", "a channel's name is lower case, like crm"),
        {
            "kind": Key("kind", Kind.CHOICE, "what it is", choices=CHANNEL_KINDS),
            "url": Key(
                "url", Kind.TEXT, "where replies are posted to; without one none are",
                form=_URL, private=True,
            ),
            "secret": Key(
                "secret", Kind.SECRET, "signs what is sent and checks what comes", form=_SIGNING
            ),
            "old_secret": Key(
                "old_secret", Kind.SECRET, "the one before: good beside it until it is removed",
                form=_SIGNING,
            ),
            "part_chars": Key(
                "part_chars", Kind.INTEGER, "a longer reply is sent in parts", 200, 1_000_000
            ),
            "timeout_ms": Key(
                "timeout_ms", Kind.DURATION, "how long one attempt may take", 100
            ),
            "ambiguous": Key(
                "ambiguous", Kind.CHOICE,
                "whether what may have arrived is sent again, under the same key",
                choices=AMBIGUOUS,
            ),
            "agent": Key("agent", Kind.TEXT, "who answers what comes in", form=_AGENT),
            "session": Key(
                "session", Kind.TEXT, "the session of what comes in and names none", form=_KEY
            ),
            "senders": Key(
                "senders", Kind.TEXTS, "who may send; nobody named: whoever can sign",
                form=_SENDER,
            ),
        },
    ),
}  # fmt: skip
