"""
Which session a `POST /v1/chat/completions` belongs to.  Pure but for the chance in a new id.

    header X-Holdfast-Session    that key, or what the alias stands for
    else `user`                  agent:<agent>:openai:direct:<user>
    else                         agent:<agent>:openai:once:<id>: a session of its own

`<user>` is lower case and percent-encoded, so it may hold whatever its client likes.
`<id>` is derived from the Idempotency-Key, if there is one: a retry has to meet the session
of its first try, or it would not be recognised.  Otherwise it is random.
"""

from __future__ import annotations

import hashlib
import unicodedata
import urllib.parse
from typing import TYPE_CHECKING

from holdfast._core import keys
from holdfast._stamps import uuid7
from holdfast.errors import BadKeyError
from holdfast.gateway.problems import BadFieldError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["agent_for", "session_key"]


def agent_for(model: str | None, agents: Collection[str]) -> str:
    """The agent whose id *model* is; any other model's name is answered by the default."""
    return model if model is not None and model in agents else keys.AGENT_DEFAULT


def session_key(
    *, header: str | None, user: str | None, agent_id: str, idempotency_key: str | None
) -> str:
    """
    The canonical key.  An empty `user` is none.

    Raises:
        BadKeyError: *header* is not a key.
        BadFieldError: *user* is too long for one, or no Unicode.
    """
    if header is not None:
        return keys.canonical(header)
    if user:
        try:
            return keys.canonical(f"agent:{agent_id}:openai:direct:{_encoded(user)}")
        except BadKeyError as error:
            raise BadFieldError(
                name="user", detail=f"it makes a session key that is none: {error.detail}"
            ) from error
        except UnicodeEncodeError as error:
            raise BadFieldError(
                name="user", detail="it is not valid Unicode (a lone surrogate)"
            ) from error
    if idempotency_key is None:
        once = uuid7()
    else:
        once = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]
    return f"agent:{agent_id}:openai:once:{once}"


def _encoded(user: str) -> str:
    text = unicodedata.normalize("NFC", user).lower()
    return urllib.parse.quote(text, safe="").lower()
