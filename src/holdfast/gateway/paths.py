"""What stands in a path, decoded.  The router sees it as it was sent; see `guard`, rule 1."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from holdfast.errors import BadKeyError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["decoded", "key_of"]


def key_of(request: Request) -> str:
    """
    The session key in the path, not yet checked.

    Raises:
        BadKeyError: its bytes are not UTF-8.
    """
    sent = request.path_params["key"]
    try:
        return decoded(sent)
    except UnicodeDecodeError as error:
        raise BadKeyError(key=sent[:80], detail="percent-encode it as UTF-8") from error


def decoded(sent: str) -> str:
    """Raises UnicodeDecodeError."""
    return unquote_to_bytes(sent).decode()
