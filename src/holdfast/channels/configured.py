"""Channels by what the settings say of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.channels.signing import key_of
from holdfast.errors import BadSettingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast._core.settings import ChannelSettings, Settings
    from holdfast.ports import Channel

__all__ = ["channels_from", "close_channels", "secrets_of"]


def channels_from(settings: Settings) -> list[Channel]:
    """
    The channels that the settings say where to deliver to.  Who calls this closes them
    (`close_channels`).

    Raises:
        BadSettingError: one cannot be made; names the setting.
    """
    made: list[Channel] = []
    for name, told in settings.channels.items():
        secrets = secrets_of(name, told)
        if told.url is not None:
            from holdfast.channels.webhook import Webhook  # noqa: PLC0415  Loaded on use.

            made.append(
                Webhook(
                    name, told.url, secrets, part_chars=told.part_chars,
                    timeout_s=told.timeout_ms / 1000, ambiguous=told.ambiguous,
                )
            )  # fmt: skip
    return made


def secrets_of(name: str, told: ChannelSettings) -> list[str]:
    """
    The channel's secrets, the newer first.

    Raises:
        BadSettingError: it has none, or one is not base64.  Shows neither.
    """
    if told.secret is None:
        raise BadSettingError(
            key=f"channels.{name}.secret",
            value="",
            allowed="needed: whsec_ and at least 24 random bytes in base64",
            hint=f"set it, e.g. in the environment: HOLDFAST_CHANNELS__{name.upper()}__SECRET",
        )
    found = []
    for key, secret in (("secret", told.secret), ("old_secret", told.old_secret)):
        if secret is None:
            continue
        try:
            key_of(secret)
        except ValueError as error:
            raise BadSettingError(
                key=f"channels.{name}.{key}", value="(not shown)", allowed=str(error)
            ) from error
        found.append(secret)
    return found


async def close_channels(channels: Iterable[Channel]) -> None:
    """Close what *channels* keep open, for whoever made them."""
    for each in channels:
        await each.aclose()
