"""
Finding a run by whatever names its session: a key, an alias, the session's id, or a file.

A file is the one that it is, not what it is called: symlinks and hard links find it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast._core import keys
from holdfast.errors import BadKeyError, NotFoundError
from holdfast.types import SessionId

if TYPE_CHECKING:
    from holdfast.ports import Store
    from holdfast.types import Session, Standing, Turn

__all__ = ["find_run"]


async def find_run(store: Store, ref: str) -> Turn:
    """
    The turn that has the lease of the session that *ref* names.

    Raises:
        NotFoundError: no such session, or nothing runs in it.

    Cost:
        One look-up; for a file, one look at each leased session's.
    """
    control = store.control
    leases = (await control.look(store.owner.owner_id)).leases
    session = await _named(store, ref)
    if session is None:
        session = await _by_file(store, ref, leases)
    for lease in leases:
        if lease.session_id == session.session_id:
            return await control.turn(lease.turn_id)
    raise NotFoundError(what="run", name=ref[:80], hint="nothing runs in this session")


async def _named(store: Store, ref: str) -> Session | None:
    try:
        return await store.control.session_of_key(keys.canonical(ref))
    except (NotFoundError, BadKeyError):
        pass
    try:
        return await store.control.session(SessionId(ref))
    except NotFoundError:
        return None


async def _by_file(store: Store, ref: str, leases: tuple[Standing, ...]) -> Session:
    for lease in leases:
        session = await store.control.session(lease.session_id)
        if store.transcripts.is_at(session, ref):
            return session
    raise NotFoundError(
        what="run", name=ref[:80],
        hint="give a session's key or id, its transcript, or a turn's id",
    )  # fmt: skip
