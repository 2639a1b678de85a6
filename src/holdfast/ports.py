"""
What the runtime asks of an agent and of a store.  Protocols only; nothing here runs.

Every method of a store that changes something is one transaction: it happened (returned),
it did not (raised), or nobody can tell (`UnavailableError` with ``landed=None``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Collection,
        Mapping,
        Sequence,
    )

    from holdfast._core.settings import Lane
    from holdfast._core.tree import Tree
    from holdfast._core.turns import Event
    from holdfast.types import (
        Admission,
        Admitted,
        Advance,
        AgentEvent,
        Appended,
        Commit,
        FencingToken,
        Leased,
        Look,
        Mark,
        Owner,
        OwnerId,
        Place,
        Prompt,
        Session,
        SessionId,
        ToolCall,
        Turn,
        TurnId,
    )

__all__ = [
    "Agent",
    "ControlStore",
    "HeldTranscript",
    "LiveFile",
    "LiveOutput",
    "Store",
    "ToolHook",
    "Transcripts",
]


# --------------------------------------------------------------------------------- agents


class ToolHook(Protocol):
    """Every tool call of every agent goes through one of these."""

    async def __call__(self, call: ToolCall, run: Callable[[], Awaitable[Any]]) -> Any:
        """
        Run a tool: check the right to act, announce the call, bound it, return its result.

        Args:
            call: What is about to run.
            run: Runs it.  Awaited at most once; never after a refusal.

        Returns:
            What *run* returned.

        Raises:
            FencedError: this attempt may no longer act.  The tool did not run.
            TimeoutError: the tool outlasted ``call.timeout_s``; it was cancelled.

        Cancellation:
            Cancels the tool.
        """
        ...


@runtime_checkable
class Agent(Protocol):
    """Something that answers a prompt."""

    def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        """
        Answer *prompt* as a stream.

        Yields:
            `Text` as it arrives, `Made` for each finished intermediate message, and last
            exactly one `Final` or `Silent`.

        Raises:
            ProviderError:
                the provider failed.  A stream that ended without a finish reason is one
                (reason ``truncated``), never a reply.

        Cancellation:
            Safe at every yield and await.  Closing the generator (``aclose``) closes the
            connection to the provider; callers always close it.

        Rules:
            Tools run only through *hook*.  No retries inside: each layer that retries
            multiplies the others, and the runtime already does.
        """
        ...


# --------------------------------------------------------------------------------- stores


class ControlStore(Protocol):
    """
    The rows that coordinate.

    Authority: the store issues admission numbers and fencing tokens, and nobody else does.
    A token never repeats and never goes back, not even after its lease has ended.
    """

    async def close(self) -> None: ...
    def watch(self, told: Callable[[], None]) -> Callable[[], None]:
        """Hint *told* (on the running loop) when others commit.  Returns: stops watching."""
        ...

    # Owners and runners.
    async def register(self, owner: Owner) -> None: ...
    async def register_runner(
        self, owner_id: OwnerId, agents: Collection[str], *, permanent: bool
    ) -> None: ...
    async def permanent_runners(self, agent_id: str) -> list[Owner]: ...
    async def beat(self, owner_id: OwnerId) -> bool:
        """Say that we are here.  False: we were buried, and hold nothing any more."""
        ...

    async def set_draining(self, owner_id: OwnerId) -> None: ...
    async def leave(self, owner_id: OwnerId) -> None: ...
    async def bury(self, owner_id: OwnerId, reason: str) -> bool: ...
    async def look(self, owner_id: OwnerId) -> Look: ...
    async def trim_events(self, keep: int) -> int: ...

    # Admission.
    async def admit(self, asked: Admission, known_agents: Collection[str]) -> Admitted:
        """
        Take a message in, durably, or refuse it without a trace.

        Returns:
            The new turn; or the earlier one, if the idempotency key was used before with
            the same content.

        Raises:
            IdempotencyConflictError, UnknownAgentError, QueueFullError, RejectedError.
            UnavailableError: not accepted; ``landed=None``: ask again with the same id.
        """
        ...

    async def make_alias(self, alias: str, key: str) -> str: ...
    async def cancel(self, turn_id: TurnId) -> Turn: ...

    # Leases.
    async def pick(
        self,
        owner_id: OwnerId,
        agents: Collection[str],
        lanes: Mapping[str, Lane],
        *,
        overdue: Collection[TurnId] = (),
        session_id: SessionId | None = None,
        only: TurnId | None = None,
    ) -> Leased | None:
        """Slot and lease, together, for the best turn that *owner_id* may run now."""
        ...

    async def has_heads(
        self, agents: Collection[str], *, session_id: SessionId | None = None
    ) -> bool:
        """Whether a pick could find anything at all.  Cheap; no lock."""
        ...

    async def is_head(self, turn_id: TurnId) -> bool:
        """Whether this turn stands first in an idle session.  Cheap; no lock."""
        ...

    def newest_token(self, session_id: SessionId) -> tuple[int, str] | None:
        """(token, owner) of the lease that stands.  Inline: asked before every append."""
        ...

    async def make_effective(self, turn_id: TurnId, token: FencingToken) -> Turn: ...
    async def count_attempt(self, turn_id: TurnId, token: FencingToken) -> int: ...
    async def commit(self, turn_id: TurnId, token: FencingToken, what: Commit) -> Turn: ...
    async def end(
        self,
        turn_id: TurnId,
        token: FencingToken,
        outcome: str,
        reason: str | None,
        hint: str | None,
    ) -> Turn: ...
    async def end_waiting(self, turn_id: TurnId, outcome: str, reason: str | None) -> Turn: ...
    async def put_back(
        self,
        turn_id: TurnId,
        token: FencingToken,
        *,
        what: Event,
        reason: str,
        not_before_ms: int = 0,
    ) -> Turn: ...
    async def keep(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None: ...
    async def salvage(self, turn_id: TurnId, token: FencingToken, finished: bytes) -> None: ...
    async def take_over(
        self, session_id: SessionId, token: FencingToken, owner_id: OwnerId
    ) -> FencingToken:
        """Fence whoever holds *token*; hold the lease in order to end its attempt."""
        ...

    # Reading.
    async def turn(self, turn_id: TurnId) -> Turn: ...
    def turn_now(self, turn_id: TurnId) -> Turn: ...
    async def turns(
        self, *, session_id: SessionId | None = None, state: str | None = None, after: int = 0
    ) -> list[Turn]: ...
    async def ended(self, turn_ids: list[TurnId]) -> list[Turn]: ...
    async def aborts(self, owner_id: OwnerId) -> list[TurnId]: ...
    async def place(self, turn_id: TurnId, lanes: Mapping[str, Lane]) -> Place: ...
    async def session(self, session_id: SessionId) -> Session: ...
    async def session_of_key(self, key: str) -> Session: ...
    async def sessions(self, after: str = "") -> list[tuple[Session, dict[str, Any]]]: ...


class HeldTranscript(Protocol):
    """A transcript whose write lock we hold."""

    @property
    def path(self) -> str: ...
    def load(self) -> Tree: ...
    def mark(self) -> Mark: ...
    def advance(self, mark: Mark) -> Advance: ...
    def append(self, entries: Sequence[Mapping[str, Any]], *, final: bool) -> Appended:
        """
        All of *entries*, in order, with one write; or none.

        The caller has checked its token after it got the lock, and keeps the lock until
        this returns: so an append by token *n* is either wholly before the load of token
        *n* + 1, and seen by it, or refused.

        Raises:
            LockLostError: nothing was written.
            StoreError: nothing was written, unless ``landed`` is None.
        """
        ...

    def release(self) -> None: ...


class Transcripts(Protocol):
    """The entries of every session."""

    async def acquire(
        self,
        session: Session,
        *,
        timeout_s: float,
        token: FencingToken | None,
        run_id: str | None,
        lane: str | None,
    ) -> HeldTranscript:
        """
        Take the write lock of *session*'s transcript.

        Raises:
            LockTimeoutError: not within *timeout_s*, one total deadline.
            StoreError: the medium failed, or this is no transcript.

        Cancellation:
            Safe; nothing stays held.
        """
        ...

    def path(self, session: Session) -> str: ...
    def read(self, session: Session) -> Tree: ...


class LiveFile(Protocol):
    def write(self, line: bytes) -> None: ...
    def close(self) -> None: ...


class LiveOutput(Protocol):
    """Work in progress, for whoever watches.  A view: its loss costs no turn."""

    def open(self, turn_id: TurnId, token: FencingToken) -> LiveFile: ...
    def turn_ids(self) -> set[str]: ...
    def remove(self, is_over: Callable[[str], bool]) -> int: ...


class Store(Protocol):
    """One state directory or database, opened by one process."""

    @property
    def where(self) -> str: ...
    @property
    def owner(self) -> Owner:
        """This process, as others see it."""
        ...

    @property
    def control(self) -> ControlStore: ...
    @property
    def transcripts(self) -> Transcripts: ...
    @property
    def live(self) -> LiveOutput: ...
    def is_dead(self, other: Owner) -> bool:
        """Proof of death, not suspicion.  False also means: cannot be known from here."""
        ...

    async def close(self) -> None: ...
