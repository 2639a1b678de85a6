"""
Request bodies: bounded in size and time, JSON, and of the form that was asked for.

A field that nobody knows is refused by name: it would be a typo.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect

from holdfast.errors import BadRequestError, TooLargeError
from holdfast.gateway.problems import BadFieldError, RequestTimeoutError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["flag", "number", "read", "read_json"]

T = TypeVar("T", bound=msgspec.Struct)

BODY_TIMEOUT_S: Final = 30.0
#: msgspec says ``… - at `$.messages[0].role` `` and ``… unknown field `polcy` ``.
_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_FIELD: Final = re.compile(r"(?:field) `(?P<name>.*)`", re.DOTALL)


async def read(request: Request, limit: int) -> bytes:
    """
    The whole body.

    Raises:
        TooLargeError: more than *limit* bytes.
        RequestTimeoutError: it came too slowly.
    """
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limit:
        raise TooLargeError(what="a request", size=int(told), limit=limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooLargeError(what="a request", size=len(body), limit=limit)
    except TimeoutError as error:
        raise RequestTimeoutError(timeout_s=BODY_TIMEOUT_S) from error
    except ClientDisconnect as error:
        raise BadRequestError(detail="the body broke off") from error
    return bytes(body)


async def read_json(request: Request, form: type[T], *, limit: int) -> T:
    """
    The body as *form*.

    Raises:
        BadRequestError: it is not JSON.
        BadFieldError: names the field that is unknown, missing or of the wrong type.
    """
    return decode(await read(request, limit), form)


def decode(body: bytes, form: type[T]) -> T:
    """See `read_json`."""
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            detail=f"the body is not JSON: {error}", hint="send a JSON object"
        ) from error


def number(request: Request, name: str, *, least: float, most: float) -> float | None:
    """
    The query parameter *name*, if it is there.

    Raises:
        BadFieldError: it is not a number in [least, most].
    """
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise BadFieldError(
            name=f"?{name}", detail=f"{text[:80]!r} is not a number from {least:g} to {most:g}"
        )
    return value


def flag(request: Request, name: str) -> bool:
    """
    The query parameter *name*: ``true`` or ``false``, which it is if it is not there.

    Raises:
        BadFieldError: it is neither.
    """
    text = request.query_params.get(name, "false")
    if text not in {"true", "false"}:
        raise BadFieldError(name=f"?{name}", detail=f"{text[:80]!r} is not true or false")
    return text == "true"


def _bad_field(said: str) -> BadFieldError:
    """msgspec's complaint, with the field it is about."""
    match = _AT.match(said)
    what, path = (match["what"], match["path"] or "") if match else (said, "")
    field = _FIELD.search(what)
    name = ".".join(part for part in (path, field["name"] if field else "") if part)
    return BadFieldError(name=(name or "body")[:200], detail=what[:300])
