"""Keys and who holds their sessions: the third of the door that moves things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core import addressing, keys
from holdfast._runtime import handing

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast._runtime.forks import Home
    from holdfast._runtime.handing import Handed
    from holdfast._runtime.pump import Pump
    from holdfast.ports import Store
    from holdfast.types import Reset

__all__ = ["Moving"]

HANDOVER_S = 10.0


class Moving:
    """What `Holdfast` does with keys and sessions.  Its parts are made by `Holdfast`."""

    store: Store
    settings: Settings
    _home: Home
    _pump: Pump

    def session_key(
        self,
        *,
        channel: str,
        peer: str,
        kind: str = "direct",
        account: str | None = None,
        thread: str | None = None,
        topic: str | None = None,
        agent: str = keys.AGENT_DEFAULT,
    ) -> str:
        """
        The key of the conversation that a channel's message belongs to.

        `holdfast.session_key`, with the settings `session.dm_scope` and `identities` of this
        store's opener.  Raises BadKeyError.
        """
        people = {name: each.peers for name, each in self.settings.identities.items()}
        return addressing.session_key(
            channel=channel, peer=peer, kind=kind, account=account, thread=thread, topic=topic,
            agent=agent, dm_scope=self.settings.dm_scope, identities=people,
        )  # fmt: skip

    async def reset(self, key: str) -> Reset:
        """
        Let *key* name a new, empty session from now on.

        Its waiting turns go along, in the order of their admission; one that has started ends
        where it began.  The old session keeps its transcript and its other keys.  Messages
        that are sent again find their first receipt, as before.

        Raises:
            NotFoundError: nobody has ever written to *key*.
            DrainingError: this process closes.

        Cancellation:
            The key may or may not have moved.
        """
        self._check_usable()
        done = await self.store.control.reset(keys.canonical(key))
        self._pump.wake()
        return done

    async def handover(self, key: str, *, timeout_s: float = HANDOVER_S) -> Handed:
        """
        Ask whoever holds *key*'s session to let go of it, and wait for what comes of it.

        A turn that moves keeps its session (`busy`); one in which nothing happens goes back to
        its place, or ends, if its program answers it itself.  Who is frozen does not answer.

        Raises:
            NotFoundError: there is no such session.

        Cancellation:
            The request stays; it may still be answered.
        """
        self._check_usable()
        session = await self.store.control.session_of_key(keys.canonical(key))
        return await handing.hand_over(
            self.store, session.session_id, timeout_s, self._pump.change
        )

    def _check_usable(self) -> None: ...
