"""The caller's to mend; nothing was accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from holdfast.errors.root import HoldfastError

__all__ = [
    "BadKeyError",
    "BadRequestError",
    "BadSettingError",
    "ForkedError",
    "IdempotencyConflictError",
    "InputError",
    "NotFoundError",
    "TooLargeError",
    "UnknownAgentError",
    "UnknownChannelError",
    "UnknownLaneError",
    "UnknownPolicyError",
]


@dataclass(kw_only=True, eq=False)
class InputError(HoldfastError):
    """The caller's to mend.  Nothing was accepted."""

    exit_code: ClassVar[int] = 2
    status: ClassVar[int] = 422


@dataclass(kw_only=True, eq=False)
class BadRequestError(InputError):
    """The request is not of the form that was asked for."""

    code: ClassVar[str] = "bad_request"
    status: ClassVar[int] = 400

    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(kw_only=True, eq=False)
class NotFoundError(InputError):
    """There is no such thing in this store."""

    code: ClassVar[str] = "not_found"
    status: ClassVar[int] = 404

    what: str
    name: str

    def __str__(self) -> str:
        return f"no such {self.what}: {self.name!r}"


@dataclass(kw_only=True, eq=False)
class BadKeyError(InputError):
    """Not a session key.  `key` is cut to 80 characters."""

    code: ClassVar[str] = "bad_key"

    key: str
    detail: str
    hint: str = "keys look like agent:main:main or agent:<id>:<channel>:direct:<peer>"

    def __str__(self) -> str:
        return f"bad session key {self.key!r}: {self.detail}"


@dataclass(kw_only=True, eq=False)
class UnknownAgentError(InputError):
    """No such agent in the settings, and no runner ever registered it in this store."""

    code: ClassVar[str] = "unknown_agent"

    agent: str
    known: list[str]
    hint: str = "start a process that runs this agent, or name one that is known"

    def __str__(self) -> str:
        return f"unknown agent {self.agent!r} (known: {', '.join(self.known)})"


@dataclass(kw_only=True, eq=False)
class UnknownChannelError(InputError):
    """No such channel, or one that delivers nothing."""

    code: ClassVar[str] = "unknown_channel"

    channel: str
    known: list[str]
    hint: str = "set channels.<name>.url and .secret, or use one that is known"

    def __str__(self) -> str:
        return f"unknown channel {self.channel!r} (known: {', '.join(self.known) or 'none'})"


@dataclass(kw_only=True, eq=False)
class UnknownLaneError(InputError):
    """No such lane."""

    code: ClassVar[str] = "unknown_lane"

    lane: str
    known: list[str]
    hint: str = "declare it under lanes.<name>, or use one that is known"

    def __str__(self) -> str:
        return f"unknown lane {self.lane!r} (known: {', '.join(self.known)})"


@dataclass(kw_only=True, eq=False)
class UnknownPolicyError(InputError):
    """No such policy, or not one this version has."""

    code: ClassVar[str] = "unknown_policy"

    policy: str
    available: list[str]
    hint: str = "use one of the available policies"

    def __str__(self) -> str:
        return f"unknown policy {self.policy!r} (available: {', '.join(self.available)})"


@dataclass(kw_only=True, eq=False)
class TooLargeError(InputError):
    """Over a documented limit."""

    code: ClassVar[str] = "too_large"
    status: ClassVar[int] = 413

    what: str
    size: int
    limit: int
    hint: str = "send less, or raise the limit"

    def __str__(self) -> str:
        return f"{self.what} of {self.size} bytes is over the limit of {self.limit}"


@dataclass(kw_only=True, eq=False)
class IdempotencyConflictError(InputError):
    """The idempotency key was used before, with another content."""

    code: ClassVar[str] = "idempotency_conflict"
    status: ClassVar[int] = 409

    idempotency_key: str
    turn_id: str  #: The turn that the key belongs to.
    hint: str = "use a new idempotency key for a new message"

    def __str__(self) -> str:
        return (
            f"idempotency key {self.idempotency_key!r} belongs to turn {self.turn_id},"
            " whose content differs"
        )


@dataclass(kw_only=True, eq=False)
class BadSettingError(InputError):
    """An unknown or malformed setting."""

    code: ClassVar[str] = "bad_setting"

    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        return f"setting {self.key} = {self.value!r}: {self.allowed}"


@dataclass(kw_only=True, eq=False)
class ForkedError(InputError):
    """A forked child used something that only its parent holds."""

    code: ClassVar[str] = "forked"

    what: str
    hint: str = "open your own after the fork"

    def __str__(self) -> str:
        return f"{self.what} belongs to the parent of this forked process"
