"""No setting is ignored in silence."""

from __future__ import annotations

import pytest

from holdfast._core.settings import KEYS, Settings, parse
from holdfast.config import from_environment
from holdfast.errors import BadSettingError, UnknownLaneError, UnknownPolicyError


def test_the_defaults_are_the_contract() -> None:
    assert parse({}) == Settings()
    assert (Settings().queue_max, Settings().attempts_max, Settings().lease_ms) == (
        200,
        3,
        30000,
    )
    assert {n: (lane.concurrency, lane.priority) for n, lane in Settings().lanes.items()} == {
        "user": (32, 100), "subagent": (16, 60), "cron": (8, 40),
        "heartbeat": (2, 20), "maintenance": (2, 10),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "ms"),
    [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("2h", 7_200_000), ("7000", 7000)],
)
def test_durations_have_units(text: str, ms: int) -> None:
    assert parse({"turn.lease_ms": text}).lease_ms == ms


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("turn.lease_ms", "60 parsecs"), ("turn.lease_ms", "60_000"), ("turn.lease_ms", -1),
        ("turn.lease_ms", True), ("turn.lease_ms", 1.5), ("turn.lease_ms", "1"),
        ("turn.queue_max", "5m"), ("turn.queue_max", "0"), ("turn.queue_max", None),
        ("session.durability", "never"), ("turn.policy", "steer"), ("turn.quque_max", "4"),
        ("lanes.user.colour", "1"), ("lanes.User.priority", "1"), ("lanes.user.priority", "high"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadSettingError) as caught:
        parse({name: value})
    assert name in str(caught.value)
    assert caught.value.allowed


def test_lanes_can_be_declared_and_changed() -> None:
    settings = parse({"lanes.bulk.concurrency": "3", "lanes.user.priority": 7})
    assert settings.lane("bulk").concurrency == 3
    assert (settings.lane("user").concurrency, settings.lane("user").priority) == (32, 7)


def test_an_unknown_lane_lists_the_known_ones() -> None:
    with pytest.raises(UnknownLaneError, match="heartbeat"):
        Settings().lane("nobody")


def test_a_policy_of_a_later_version_is_refused_with_what_is_available() -> None:
    for name in ("collect", "steer", "interrupt", "rollback", "nonsense"):
        with pytest.raises(UnknownPolicyError) as caught:
            Settings().checked_policy(name)
        assert caught.value.available == ["enqueue", "reject"]


def test_the_environment_speaks_the_same_names() -> None:
    found = from_environment(
        {"HOLDFAST_TURN__QUEUE_MAX": "400", "HOLDFAST_STORE": "/x", "PATH": "/bin"}
    )
    assert found == {"turn.queue_max": "400"}
    assert parse(found).queue_max == 400


def test_every_key_names_a_field() -> None:
    assert {key.field for key in KEYS.values()} <= set(Settings.__dataclass_fields__)
