"""
Live output: what the lease holder lets others see while its turn runs.

The first text goes out at once; after that, text is coalesced to at most 20 events a second.
Live output is a view: if it cannot be written, the turn goes on and one line is logged.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast._stamps import now_iso
from holdfast.errors import FencedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.ports import LiveFile, LiveOutput
    from holdfast.types import FencingToken, TurnId

__all__ = ["Live"]

COALESCE_S: Final = 0.05

_log = logging.getLogger("holdfast.live")
_encoder = msgspec.json.Encoder()


class Live:
    """
    The live log of one token.  Loop-bound; `silence` once the right to act is gone.

    Args:
        check: raises FencedError unless this token may still act: asked before every line.
    """

    def __init__(
        self,
        output: LiveOutput,
        turn_id: TurnId,
        token: FencingToken,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._turn_id, self._token, self._check = turn_id, token, check
        self._count = 0
        self._text: list[str] = []
        self._flush_at: asyncio.TimerHandle | None = None
        self._quiet_until_s = 0.0
        self._file: LiveFile | None = None
        try:
            self._file = output.open(turn_id, token)
        except OSError as error:
            _log.warning("turn %s: no live output: %s", turn_id, error)

    def emit(self, event: str, **data: Any) -> None:
        """One event, after whatever text is still waiting."""
        self._flush()
        self._write(event, data)

    def text(self, delta: str) -> None:
        self._text.append(delta)
        loop = asyncio.get_running_loop()
        if loop.time() >= self._quiet_until_s:
            self._flush()
        elif self._flush_at is None:
            self._flush_at = loop.call_at(self._quiet_until_s, self._flush)

    def silence(self) -> None:
        """Show nothing more.  What is waiting is dropped: a successor speaks now."""
        self._text.clear()
        self._close()

    def close(self) -> None:
        self._flush()
        self._close()

    def _flush(self) -> None:
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        if self._text:
            text = "".join(self._text)
            self._text.clear()
            self._quiet_until_s = asyncio.get_running_loop().time() + COALESCE_S
            self._write("text", {"text": text})

    def _write(self, event: str, data: dict[str, Any]) -> None:
        if self._file is None or not self._may_show():
            return
        self._count += 1
        line = {
            "id": f"{self._token}.{self._count}",
            "event": event,
            "at": now_iso(),
            "data": data,
        }
        try:
            self._file.write(_encoder.encode(line) + b"\n")
        except OSError as error:
            _log.warning("turn %s: live output ends here: %s", self._turn_id, error)
            self._close()

    def _may_show(self) -> bool:
        try:
            if self._check is not None:
                self._check()
        except FencedError:
            self.silence()
            return False
        except StoreError as error:  # A store that cannot be asked closes no door.
            _log.info("turn %s: shown unchecked: %s", self._turn_id, error)
        return True

    def _close(self) -> None:
        if self._flush_at is not None:
            self._flush_at.cancel()
            self._flush_at = None
        file, self._file = self._file, None
        if file is not None:
            file.close()
