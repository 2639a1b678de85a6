"""
The console's own files: a handful, read once; no path ever comes from a request.

They are not private, so they need no token.  A browser asks each time whether its copy is
still good, and an ETag made of the content says so in any process.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Files"]

_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class _File:
    data: bytes
    media_type: str
    etag: str


class Files:
    """An ASGI application for the files in *folder*."""

    def __init__(self, folder: str) -> None:
        names = [n for n in os.listdir(folder) if os.path.splitext(n)[1] in _TYPES]
        self._files = {f"/{name}": _read(os.path.join(folder, name)) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        if request.method not in {"GET", "HEAD"}:
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        file = self._files.get(scope["path"].removeprefix(scope.get("root_path", "")))
        if file is None:
            raise HTTPException(404)
        headers = {
            "ETag": file.etag,
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        if file.etag in request.headers.get("if-none-match", ""):
            answer = Response(status_code=304, headers=headers)
        else:
            answer = Response(file.data, headers=headers, media_type=file.media_type)
        await answer(scope, receive, send)


def _read(path: str) -> _File:
    with open(path, "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()[:32]
    return _File(data, _TYPES[os.path.splitext(path)[1]], f'"{digest}"')
