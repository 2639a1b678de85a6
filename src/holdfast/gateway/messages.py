"""Messages in: accepted with a receipt, or waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import JSONResponse

from holdfast._core.failover import PROVIDER_REASONS
from holdfast.errors import DrainingError
from holdfast.gateway import bodies
from holdfast.gateway.paths import key_of
from holdfast.gateway.problems import TurnFailedError

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast._runtime.receipts import Outcome, Receipt
    from holdfast.gateway.app import Gateway

__all__ = ["outcome_or_gone", "raise_if_provider_failed", "receipt_json", "send"]

WAIT_MAX_S: Final = 3_600.0


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """The body; the fields are those of `Holdfast.submit`."""

    text: str
    lane: str = "user"
    source: str = "api"
    policy: str | None = None
    idempotency_key: str | None = None
    sender: str | None = None
    target: str | None = None


async def send(request: Request) -> JSONResponse:
    """
    Take a message in.

    Returns:
        202 and a receipt; with ``?wait=SECONDS`` 200 and the outcome, if it comes in time.
    """
    gateway: Gateway = request.app.state.gateway
    wait_s = bodies.number(request, "wait", least=0, most=WAIT_MAX_S)
    key = key_of(request)
    message = await bodies.read_json(request, Message, limit=gateway.settings.body_bytes_max)
    receipt = await gateway.hf.submit(
        key,
        message.text,
        lane=message.lane,
        source=message.source,
        policy=message.policy,
        idempotency_key=message.idempotency_key,
        sender=message.sender,
        target=message.target,
    )
    if wait_s is not None:
        outcome = await outcome_or_gone(request, receipt, wait_s)
        if outcome is not None:
            raise_if_provider_failed(outcome)
            return JSONResponse(outcome.to_json())
    return JSONResponse(receipt_json(receipt), 202)


async def outcome_or_gone(
    request: Request, receipt: Receipt, wait_s: float | None
) -> Outcome | None:
    """
    Wait for the outcome, as long as somebody waits for it there.

    Returns:
        None: not within *wait_s*, or the client has gone, or this process drains.  The turn
        goes on, unless `gateway.cancel_on_disconnect` says that it ends with its client.
    """
    gateway: Gateway = request.app.state.gateway
    outcome = asyncio.ensure_future(receipt.outcome())
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({outcome, gone}, timeout=wait_s, return_when="FIRST_COMPLETED")
        if outcome.done():
            return outcome.result()
        if gone.done() and gateway.settings.cancel_on_disconnect:
            await gateway.hf.cancel(receipt.turn_id)
    except DrainingError:
        return None
    finally:
        for task in (outcome, gone):
            task.cancel()
        await asyncio.gather(outcome, gone, return_exceptions=True)
    return None


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def raise_if_provider_failed(outcome: Outcome) -> None:
    """
    Raises:
        TurnFailedError: the model's provider is why there is no reply.
    """
    if outcome.kind == "failed" and outcome.reason in PROVIDER_REASONS:
        raise TurnFailedError(
            turn_id=outcome.turn_id,
            session_id=outcome.session_id,
            outcome=outcome.kind,
            reason=outcome.reason,
            attempts=outcome.attempts,
            hint=outcome.hint or "",
        )


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    return {
        "turn_id": receipt.turn_id,
        "session_id": receipt.session_id,
        "admission": receipt.admission,
        "position": receipt.position,
        "waiting_for": receipt.waiting_for,
        "reason": receipt.reason,
        "fresh": receipt.fresh,
    }
