"""Where a reply is to be delivered to: checked before its message is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.errors import BadRequestError, UnknownChannelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.settings import Settings
    from holdfast.ports import Channel

__all__ = ["ADDRESS_CHARS_MAX", "part_chars_of"]

ADDRESS_CHARS_MAX: Final = 255


def part_chars_of(target: str, settings: Settings, channels: Mapping[str, Channel]) -> int:
    """
    The longest part that *target* takes.

    Args:
        channels: those open in this process, by name; the others are known by the settings.

    Raises:
        BadRequestError: it is not of the form ``channel:address``.
        UnknownChannelError: nobody delivers there.
    """
    name, colon, address = target.partition(":")
    if not (colon and name and len(address) <= ADDRESS_CHARS_MAX and address.isprintable()):
        raise BadRequestError(
            detail=f"the target {target[:80]!r} is not of the form channel:address",
            hint=f"name a channel, a colon, and at most {ADDRESS_CHARS_MAX} characters",
        )
    if name in channels:
        return channels[name].part_chars_max
    told = settings.channels.get(name)
    if told is not None and told.url is not None:
        return told.part_chars
    known = {each for each, about in settings.channels.items() if about.url is not None}
    raise UnknownChannelError(channel=name[:80], known=sorted(known | set(channels)))
