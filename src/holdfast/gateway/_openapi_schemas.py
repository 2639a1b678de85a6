"""The objects of `/openapi.json`, and what its statuses mean."""

from __future__ import annotations

from typing import Any, Final

from holdfast._core.explaining import STATES
from holdfast._core.turns import OUTCOMES, State

__all__ = ["SCHEMAS", "WHY"]

Json = dict[str, Any]

_TEXT: Final[Json] = {"type": "string"}
_MAYBE_TEXT: Final[Json] = {"type": ["string", "null"]}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_YES_OR_NO: Final[Json] = {"type": "boolean"}
_OUTCOME: Final[Json] = {"enum": [*OUTCOMES, None]}


def _object(fields: Json, *, optional: tuple[str, ...] = (), closed: bool = False) -> Json:
    made: Json = {
        "type": "object",
        "properties": fields,
        "required": [name for name in fields if name not in optional],
    }
    if closed:
        made["additionalProperties"] = False
    return made


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


_PLACE: Final[Json] = {"position": _COUNT, "waiting_for": _MAYBE_TEXT}
_IDS: Final[Json] = {"turn_id": _TEXT, "session_id": _TEXT}
_SESSION: Final = _object(
    {
        "session_id": _TEXT,
        "agent": _TEXT,
        "created_at": _TEXT,
        "keys": _list(_TEXT),
        "aliases": _list(_TEXT),
        "turns": _COUNT,
        "waiting": _COUNT,
        "running": _MAYBE_TEXT,
    },
    optional=("aliases",),
)
_ENTRY: Final = _object({"cursor": _TEXT, "entry": {"type": "object"}})
_MAYBE_COUNT: Final[Json] = {"type": ["integer", "null"], "minimum": 0}
_LOCK: Final = _object(
    {
        "path": _TEXT,
        "holder": _object(
            {
                "pid": _MAYBE_COUNT,
                "host": _MAYBE_TEXT,
                "run_id": _MAYBE_TEXT,
                "lane": _MAYBE_TEXT,
                "stopped": {"type": ["boolean", "null"]},
            }
        ),
        "age_ms": _MAYBE_COUNT,
        "promised_ms": _MAYBE_COUNT,
        "reasons": _list(_TEXT),
        "verdict": {"enum": ["wait", "report", "reclaim"]},
        "row": _MAYBE_TEXT,
        "claim": _MAYBE_TEXT,
        "latch": _object(
            {"state": {"enum": ["held", "free", "unknown"]}, "pids": _list(_COUNT)}
        ),
        "waiting": _MAYBE_COUNT,
        "says": _TEXT,
        "outlook": _TEXT,
    }
)
_HOLDER: Final = _object(
    {
        "turn_id": _TEXT,
        "lane": _TEXT,
        "source": _TEXT,
        "attempts": _COUNT,
        "since": _TEXT,
        "age_ms": _COUNT,
        "token": _COUNT,
        "effective": _YES_OR_NO,
        "recovering": _YES_OR_NO,
        "abort_requested": _YES_OR_NO,
        "abort_reason": _MAYBE_TEXT,
        "waits_for": _MAYBE_TEXT,
        "pid": _MAYBE_COUNT,
        "host": _MAYBE_TEXT,
        "life": {"enum": ["alive", "stopped", "dead", "gone", "unknown"]},
        "progress": {"type": "object"},
    }
)
_WAITING: Final = _object(
    {
        "turn_id": _TEXT,
        "lane": _TEXT,
        **_PLACE,
        "reason": _TEXT,
        "since": _TEXT,
        "blocker": _MAYBE_TEXT,
        "host": _MAYBE_TEXT,
    }
)
_WHY: Final = _object(
    {
        "session": _TEXT,
        "session_id": _TEXT,
        "keys": _list(_TEXT),
        "agent": _TEXT,
        "state": {"enum": list(STATES)},
        "holder": {"anyOf": [_HOLDER, {"type": "null"}]},
        "waiting": _list(_WAITING),
        "waiting_count": _COUNT,
        "next": _TEXT,
        "write_lock": {"anyOf": [_LOCK, {"type": "null"}]},
        "runners": _list({"type": "object"}),
        "owed": _COUNT,
        "deliveries": _list({"type": "object"}),
        "broken": _list(
            _object({"condition": _TEXT, "detail": _TEXT, "do": _TEXT, "blocks": _YES_OR_NO})
        ),
    }
)
_LANE: Final = _object(
    {
        "lane": _TEXT,
        "concurrency": _COUNT,
        "priority": {"type": "integer"},
        "running": _COUNT,
        "waiting": _COUNT,
        "oldest": _MAYBE_TEXT,
        "oldest_ms": _COUNT,
    }
)
_EVENT: Final = _object(
    {
        "id": _COUNT,
        "at": _TEXT,
        "kind": _TEXT,
        "session_id": _MAYBE_TEXT,
        "turn_id": _MAYBE_TEXT,
        "owner_id": _MAYBE_TEXT,
        "lane": _MAYBE_TEXT,
        "data": {"type": "object"},
    }
)
_CHAT_MESSAGE: Final = _object(
    {"role": _TEXT, "content": {"type": ["string", "array", "null"]}}, optional=("content",)
)

SCHEMAS: Final[Json] = {
    "Message": _object(
        {
            "text": _TEXT,
            "lane": _TEXT,
            "source": _TEXT,
            "policy": _MAYBE_TEXT,
            "sender": _MAYBE_TEXT,
            "target": _MAYBE_TEXT,
            "idempotency_key": _MAYBE_TEXT,
        },
        optional=("lane", "source", "policy", "idempotency_key", "sender", "target"),
        closed=True,
    ),
    "Incoming": _object(
        {
            "text": _TEXT,
            "key": _MAYBE_TEXT,
            "peer": _MAYBE_TEXT,
            "chat": {"enum": ["direct", "group", "channel", "room"]},
            "thread": _MAYBE_TEXT,
            "sender": _MAYBE_TEXT,
            "reply_to": _MAYBE_TEXT,
        },
        optional=("key", "peer", "chat", "thread", "sender", "reply_to"),
        closed=True,
    ),
    "Receipt": _object(
        {**_IDS, "admission": _COUNT, **_PLACE, "reason": _TEXT, "fresh": _YES_OR_NO},
    ),
    "Outcome": _object(
        {
            **_IDS,
            "outcome": {"enum": list(OUTCOMES)},
            "text": _MAYBE_TEXT,
            "reason": _MAYBE_TEXT,
            "hint": _MAYBE_TEXT,
            "attempts": _COUNT,
            "waited_ms": _COUNT,
            "merged_into": _TEXT,
        },
        optional=("merged_into",),
    ),
    "Turn": _object(
        {
            **_IDS,
            "session": _TEXT,
            "lane": _TEXT,
            "source": _TEXT,
            "state": {"enum": [state.value for state in State]},
            "outcome": _OUTCOME,
            "text": _MAYBE_TEXT,
            "reason": _MAYBE_TEXT,
            "hint": _MAYBE_TEXT,
            "attempts": _COUNT,
            "accepted_at": _TEXT,
            "started_at": _MAYBE_TEXT,
            "ended_at": _MAYBE_TEXT,
            **_PLACE,
            "waits": _TEXT,
        }
    ),
    "Session": _SESSION,
    "Sessions": _object({"sessions": _list(_SESSION), "next": _MAYBE_TEXT}),
    "Why": _WHY,
    "Reset": _object(
        {
            "session": _TEXT,
            "old": _TEXT,
            "new": _TEXT,
            "moved": _list(_TEXT),
            "stayed": _list(_TEXT),
        }
    ),
    "Handover": _object(
        {
            "session": _TEXT,
            "session_id": _TEXT,
            "turn_id": _MAYBE_TEXT,
            "answer": {"enum": ["let_go", "busy", None]},
            "detail": _MAYBE_TEXT,
            "again": _YES_OR_NO,
            "holder": {"anyOf": [_HOLDER, {"type": "null"}]},
            "broken": _list({"type": "object"}),
            "next": _TEXT,
        },
        optional=("holder", "broken", "next"),
    ),
    "Lanes": _object({"lanes": _list(_LANE)}),
    "Events": _object({"events": _list(_EVENT), "next": _COUNT}),
    "Locks": _object({"locks": _list(_LOCK)}),
    "Entries": _object({"entries": _list(_ENTRY), "next": _TEXT}),
    "CompletionRequest": _object(
        {
            "model": _TEXT,
            "messages": _list(_CHAT_MESSAGE),
            "user": _MAYBE_TEXT,
            "stream": {"type": ["boolean", "null"]},
        },
        optional=("model", "user", "stream"),
    ),
    "Completion": _object(
        {
            "id": _TEXT,
            "object": {"const": "chat.completion"},
            "created": _COUNT,
            "model": _TEXT,
            "choices": _list({"type": "object"}),
            "usage": {"type": "object"},
        }
    ),
    "Models": _object({"object": {"const": "list"}, "data": _list({"type": "object"})}),
    "Health": _object({"status": {"const": "ok"}}),
    "Ready": _object(
        {
            "status": {"const": "ready"},
            "agents": _list(_TEXT),
            "waiting": _COUNT,
            "running": _COUNT,
        }
    ),
    "Problem": _object(
        {
            "type": _TEXT,
            "title": _TEXT,
            "status": _COUNT,
            "detail": _TEXT,
            "code": _TEXT,
            "hint": _TEXT,
        }
    ),
}

#: What a status means.
WHY: Final = {
    400: "Not of the form that was asked for.",
    401: "No token, or not this server's.",
    403: "Host or Origin is not a name of this server.",
    404: "There is no such thing.",
    405: "This path takes another method.",
    408: "The body came too slowly.",
    409: "Refused: policy `reject` met a busy session, or the idempotency key was used before.",
    413: "Too large.",
    422: "Cannot be accepted: a key, field, lane, policy or agent.",
    429: "The session's queue is full.  See Retry-After.",
    431: "Too many header fields.",
    502: "The model's provider failed, and the turn with it.",
    503: "Busy, draining, or the store did not answer.  See Retry-After.",
    507: "The disk is full.",
}
