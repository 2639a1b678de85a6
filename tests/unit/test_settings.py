"""No setting is ignored in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._core.settings import (
    KEYS,
    POLICIES,
    AgentSettings,
    Given,
    Settings,
    default_of,
    parse,
    settle,
)
from holdfast._core.settings_table import FAMILIES, FOUNDING_NAMES, Kind, find, unit_of
from holdfast.config import from_environment
from holdfast.errors import BadSettingError, UnknownLaneError, UnknownPolicyError

DURATIONS = [name for name, key in KEYS.items() if key.kind is Kind.DURATION]
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


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
        ("session.durability", "never"), ("turn.policy", "nonsense"), ("turn.quque_max", "4"),
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


def test_an_unknown_policy_is_refused_with_what_is_available() -> None:
    with pytest.raises(UnknownPolicyError) as caught:
        Settings().checked_policy("nonsense", "user")
    assert caught.value.available == list(POLICIES)


def test_a_policy_is_the_messages_own_else_its_lanes_else_the_settings() -> None:
    settings = parse({"turn.policy": "collect", "lanes.cron.policy": "reject"})
    assert settings.checked_policy("steer", "cron") == "steer"
    assert settings.checked_policy(None, "cron") == "reject"
    assert settings.checked_policy(None, "user") == "collect"


def test_the_environment_speaks_the_same_names() -> None:
    found = from_environment(
        {"HOLDFAST_TURN__QUEUE_MAX": "400", "HOLDFAST_STORE": "/x", "PATH": "/bin"}
    )
    assert found == {"turn.queue_max": "400"}
    assert parse(found).queue_max == 400


def test_every_key_names_a_field_of_its_own_and_says_what_it_is_for() -> None:
    named = [key.field for key in KEYS.values()]
    assert sorted([*named, *FAMILIES]) == sorted(Settings.__dataclass_fields__)
    assert set(FAMILIES["agents"].keys) == set(AgentSettings.__dataclass_fields__)
    for key in [*KEYS.values(), *(k for f in FAMILIES.values() for k in f.keys.values())]:
        assert key.help
        assert "\n" not in key.help


@pytest.mark.parametrize("name", KEYS)
def test_a_default_is_a_value_that_could_be_given(name: str) -> None:
    default = default_of(name)
    if KEYS[name].kind is not Kind.SECRET:
        assert getattr(parse({name: default}), KEYS[name].field) == default


# ---------------------------------------------------------------------------- durations


@given(
    st.sampled_from(DURATIONS), st.integers(0, 10**12), st.sampled_from([*UNITS, ""]),
    st.sampled_from(["", " ", "\t"]),
)  # fmt: skip
def test_a_duration_means_the_same_in_every_unit(
    name: str, number: int, suffix: str, space: str
) -> None:
    _, unit_ms, most = unit_of(name)
    whole, rest = divmod(number * UNITS[suffix], unit_ms) if suffix else (number, 0)
    values = {name: f"{space}{number}{suffix}{space}"}
    if rest or not KEYS[name].least <= whole <= most:
        with pytest.raises(BadSettingError, match=name):
            parse(values)
    else:
        assert getattr(parse(values), KEYS[name].field) == whole
        assert parse({name: whole}) == parse(values)


@given(st.sampled_from(list(KEYS)), st.text() | st.floats() | st.lists(st.text()) | st.none())
def test_whatever_is_given_is_taken_or_refused_by_name(name: str, value: object) -> None:
    try:
        read = getattr(parse({name: value}), KEYS[name].field)
    except BadSettingError as error:
        assert (error.key, bool(error.allowed)) == (name, True)
    else:
        assert type(read) in {int, str, bool, tuple}


def test_minutes_take_durations_of_whole_minutes() -> None:
    assert parse({"gateway.live_log_minutes": "1h"}).live_log_minutes == 60
    assert parse({"gateway.live_log_minutes": "120s"}).live_log_minutes == 2
    for wrong in ("90s", "500ms", "1d", "1.5h", "9" * 5000):
        with pytest.raises(BadSettingError, match="minutes"):
            parse({"gateway.live_log_minutes": wrong})


# -------------------------------------------------------------------------- other kinds


@pytest.mark.parametrize(
    ("value", "read"),
    [(True, True), ("true", True), ("ON", True), ("0", False), ("no", False), (False, False)],
)
def test_booleans(value: object, read: bool) -> None:
    found = parse({"gateway.cancel_on_disconnect": value}).cancel_on_disconnect
    assert found is read


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("a.example, b.example:81", ("a.example", "b.example:81")),
        (["a.example"], ("a.example",)), ("", ()), ([], ()),
    ],
)  # fmt: skip
def test_lists_are_lists_or_text_with_commas(value: object, read: tuple[str, ...]) -> None:
    assert parse({"gateway.allowed_hosts": value}).gateway_allowed_hosts == read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gateway.cancel_on_disconnect", 1), ("gateway.cancel_on_disconnect", "maybe"),
        ("gateway.allowed_hosts", "a,,b"), ("gateway.allowed_hosts", ["a,b"]),
        ("gateway.allowed_hosts", [1]), ("gateway.allowed_hosts", "http://a"),
        ("gateway.port", 65_536), ("gateway.port", "80ms"), ("gateway.port", "٣"),
        ("gateway.host", ""), ("gateway.host", "a b"), ("gateway.host", 1),
        ("turn.queue_max", 2**31), ("turn.lease_ms", "9000h"), ("turn.queue_max", "9" * 5000),
        ("turn.policy", ["enqueue"]), ("turn.queue_max", {"a": 1}), ("turn.queue_max", {}),
        ("agents.main.model", ""), ("agents.main.model", " x"), ("agents.main.model", 5),
        ("agents.main.model", "a\nb"), ("agents.main.object", "app"),
        ("agents.main.object", "app:"), ("agents.main.object", "./app.py:agent"),
        ("agents.main.instructions", "  "), ("agents.main.instructions", "\udcff"),
        ("lanes.bulk.concurrency", -1), ("agents.Main", {}), ("agents.a.b", {}),
        ("turn", 5), ("trun", {}), ("lanes.bulk", 5),
    ],
)  # fmt: skip
def test_what_is_not_of_its_kind_is_refused_by_name(name: str, value: object) -> None:
    more = {"agents.main.model": "m"} if name.endswith("instructions") else {}
    with pytest.raises(BadSettingError) as caught:
        parse({**more, name: value})
    assert caught.value.key == name
    assert caught.value.allowed
    assert len(str(caught.value)) < 500


def test_later_versions_settings_are_not_known_yet() -> None:
    for name in (
        "heartbeat.every_ms", "cron.catch_up", "compaction.keep_chars",
    ):  # fmt: skip
        with pytest.raises(BadSettingError, match=name) as caught:
            parse({name: 1})
        assert "did you mean" not in caught.value.allowed


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("turn.quque_max", "turn.queue_max"), ("turn.queueMax", "turn.queue_max"),
        ("queue_max", "turn.queue_max"), ("gateway_host", "gateway.host"),
        ("session.queue_max", "turn.queue_max"), ("lanes.bulk.prioritty", "lanes.bulk.priority"),
        ("agents.ops.modle", "agents.ops.model"),
        ("session.writelock.maxholdms", "session.write_lock.max_hold_ms"),
    ],
)  # fmt: skip
def test_a_slip_is_told_what_was_meant(slip: str, meant: str) -> None:
    with pytest.raises(BadSettingError) as caught:
        parse({slip: "1"})
    assert caught.value.allowed == f"no such setting; did you mean {meant}?"


def test_a_member_with_a_bad_name_is_told_what_names_are_like() -> None:
    with pytest.raises(BadSettingError, match="lower case"):
        parse({"agents.My Agent.model": "m"})


# ----------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gateway.token", "hush hush"), ("gateway.token", 987654), ("gateway_token", "hush"),
        ("gateway.tokn", "hush"), ("gateway.auth.token", "hush"), ("models.api_key", "hush"),
    ],
)  # fmt: skip
def test_no_message_shows_a_secret(name: str, value: object) -> None:
    with pytest.raises(BadSettingError) as caught:
        parse({name: value})
    told = f"{caught.value} {caught.value.to_json()} {caught.value!r}"
    assert name in told
    assert "hush" not in told
    assert "987654" not in told


def test_settings_do_not_show_their_token() -> None:
    settings = parse({"gateway.token": "hush"})
    assert settings.gateway_token == "hush"
    assert "hush" not in repr(settings)


# ------------------------------------------------------------------------------ agents


def test_agents_are_models_objects_or_only_known() -> None:
    settings = parse(
        {
            "agents.main.model": "openai-chat:m", "agents.main.instructions": "Be\nbrief.",
            "agents.main.tools": "app:weather, app.more:now", "agents.own.object": "app:make.it",
            "agents.ops": {},
        }
    )  # fmt: skip
    assert settings.agents == {
        "main": AgentSettings("openai-chat:m", "Be\nbrief.", ("app:weather", "app.more:now")),
        "own": AgentSettings(object="app:make.it"),
        "ops": AgentSettings(),
    }


@pytest.mark.parametrize(
    ("values", "refused", "because"),
    [
        ({"object": "a:b", "model": "m"}, {"model"}, "not together"),
        ({"object": "a:b", "tools": [], "instructions": "x"}, {"tools", "instructions"}, "not"),
        ({"instructions": "x"}, {"instructions"}, "only together with agents.main.model"),
        ({"tools": ["a:b"]}, {"tools"}, "only together with agents.main.model"),
        ({"model": "demo", "tools": ["a:b"]}, {"tools"}, "demo"),
        ({"model": "", "tools": ["a:b"]}, {"model"}, "a model's name"),
    ],
)
def test_what_does_not_go_together_is_refused(
    values: dict[str, object], refused: set[str], because: str
) -> None:
    given = [Given(f"agents.main.{last}", value, "here") for last, value in values.items()]
    problems = settle(given).problems
    assert {p.given.name.rpartition(".")[2] for p in problems} == refused
    assert because in problems[0].error.allowed


# ------------------------------------------------------------------- several at one time


def test_all_problems_are_found_and_a_replaced_value_is_one_too() -> None:
    settled = settle(
        [
            Given("turn.queue_max", "many", "a"), Given("turn.queue_max", "5", "b"),
            Given("nonsense", 1, "a"), Given("turn.lease_ms", "10s", "a"),
        ]
    )  # fmt: skip
    assert [(p.given.source, p.given.name) for p in settled.problems] == [
        ("a", "turn.queue_max"), ("a", "nonsense"),
    ]  # fmt: skip
    assert settled.problems[0].error.hint == "mend it in a"
    assert (settled.settings.queue_max, settled.settings.lease_ms) == (5, 10_000)


@pytest.mark.parametrize(("old", "new"), FOUNDING_NAMES.items())
def test_founding_names_are_taken_and_give_way_to_ours(old: str, new: str) -> None:
    key = find(new)
    assert key is not None
    assert getattr(parse({old: "5s"}), key.field) == 5_000
    for both in ({old: "5s", new: "7s"}, {new: "7s", old: "5s"}):
        assert getattr(parse(both), key.field) == 7_000
    with pytest.raises(BadSettingError) as caught:
        parse({old: "Infinity"})
    assert caught.value.key == old
