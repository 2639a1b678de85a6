"""Where settings come from: files, the environment, flags; and that none is lost on the way."""

from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import holdfast
from holdfast import config
from holdfast._core import settings_forms as forms
from holdfast._core.settings import LANES, Given, Settings, default_of, each_given, settle
from holdfast._core.settings_schema import schema
from holdfast._core.settings_table import (
    FAMILIES,
    FOUNDING_NAMES,
    FOUNDING_VARIABLES,
    KEYS,
    Kind,
    find,
)
from holdfast.errors import (
    BadRequestError,
    BadSettingError,
    HoldfastError,
    NotFoundError,
    TooLargeError,
)

DOCS = Path(__file__).parents[2] / "docs" / "settings.md"

#: A value that is no default, as TOML has it, for every name there is.
SAMPLES: dict[str, Any] = {
    **{
        name: {
            Kind.DURATION: 1234,
            Kind.INTEGER: 1234,
            Kind.CHOICE: key.choices and min(set(key.choices) - {default_of(name)}),
            Kind.BOOLEAN: not default_of(name),
            Kind.TEXT: "::1",
            Kind.TEXTS: ["a.example", "b.example"],
            Kind.SECRET: "s3cret",
        }[key.kind]
        for name, key in KEYS.items()
    },
    "lanes.bulk.concurrency": 3,
    "lanes.bulk.policy": "reject",
    "lanes.user.priority": 7,
    "agents.main.model": "openai-chat:m",
    "agents.main.instructions": "Be brief.",
    "agents.main.tools": ["app:weather", "app:now"],
    "agents.own.object": "app:agent",
    "identities.ann.peers": ["telegram:4711", "matrix:@ann:example.org"],
    "channels.crm.kind": "webhook",
    "channels.crm.url": "https://example.org/hook",
    "channels.crm.secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "channels.crm.old_secret": "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB",
    "channels.crm.part_chars": 1234,
    "channels.crm.timeout_ms": 1234,
    "channels.crm.ambiguous": "give_up",
    "channels.crm.agent": "ops",
    "channels.crm.session": "agent:ops:crm",
    "channels.crm.senders": ["ann", "bob"],
}
#: What else has to be there for it.
BESIDE = {
    "agents.main.instructions": {"agents.main.model": "openai-chat:m"},
    "agents.main.tools": {"agents.main.model": "openai-chat:m"},
}


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def file_of(values: dict[str, Any], path: Path) -> str:
    path.write_text("\n".join(f"{name} = {toml(value)}" for name, value in values.items()))
    return str(path)


def variable(name: str) -> str:
    return "HOLDFAST_" + name.upper().replace(".", "__")


def as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def in_force(name: str, settings: Settings) -> Any:
    if name in KEYS:
        return getattr(settings, KEYS[name].field)
    family, member, last = name.split(".")
    return getattr(getattr(settings, family)[member], last)


def test_the_samples_are_of_every_setting() -> None:
    kinds = {f"{f}.{name.split('.')[2]}" for f in FAMILIES for name in SAMPLES if name[0] == f[0]
             and name.count(".") == 2 and name.startswith(f)}  # fmt: skip
    assert {f"{f}.{last}" for f, told in FAMILIES.items() for last in told.keys} <= kinds
    assert set(KEYS) <= set(SAMPLES)


# ------------------------------------------------------------------------- every source


@pytest.mark.parametrize("name", SAMPLES)
def test_every_setting_comes_through_file_environment_and_flags(
    name: str, tmp_path: Path
) -> None:
    value, beside = SAMPLES[name], BESIDE.get(name, {})
    wanted = tuple(value) if isinstance(value, list) else value
    if name in KEYS:
        assert wanted != default_of(name)
    path = file_of({**beside, name: value}, tmp_path / "h.toml")
    environment = {variable(n): as_text(v) for n, v in {**beside, name: value}.items()}
    ways: list[dict[str, Any]] = [
        {"file": path},
        {"environment": environment},
        {"given": {**beside, name: value}, "given_by": "command line"},
        {"given": {**beside, name: as_text(value)}, "given_by": "command line"},
    ]
    sources = [path, f"environment {variable(name)}", "command line", "command line"]
    for way, source in zip(ways, sources, strict=True):
        loaded = config.look(**way)
        assert loaded.problems == ()
        assert in_force(name, loaded.settings) == wanted
        assert loaded.won[name].source == source
        assert set(loaded.won) == {name, *beside}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_malformed_setting_is_refused_by_its_name_and_source(
    name: str, tmp_path: Path
) -> None:
    path = file_of({**BESIDE.get(name, {}), name: -1}, tmp_path / "h.toml")
    with pytest.raises(BadSettingError) as caught:
        config.load(file=path)
    key = find(name)
    assert key is not None
    assert caught.value.key == name
    assert caught.value.allowed == forms.allowed(name, key)
    assert caught.value.hint == f"mend it in {path}"
    with pytest.raises(BadSettingError) as caught:
        config.load(environment={variable(name): "\x00"})
    assert variable(name) in caught.value.hint


def test_later_sources_win(tmp_path: Path) -> None:
    path = file_of({"turn.queue_max": 1, "turn.max_attempts": 1, "turn.max_reruns": 1},
                   tmp_path / "h.toml")  # fmt: skip
    environment = {"HOLDFAST_TURN__MAX_ATTEMPTS": "2", "HOLDFAST_TURN__MAX_RERUNS": "2"}
    flags = {"turn.max_reruns": 3, "turn.lease_ms": None}
    found = config.load(file=path, environment=environment, given=flags)
    assert (found.queue_max, found.attempts_max, found.reruns_max) == (1, 2, 3)
    assert found.lease_ms == 30_000


def test_a_value_that_a_later_source_replaces_is_refused_too(tmp_path: Path) -> None:
    path = file_of({"turn.queue_max": "many", "nonsense": 1}, tmp_path / "h.toml")
    with pytest.raises(BadSettingError) as caught:
        config.load(file=path, environment={"HOLDFAST_TURN__QUEUE_MAX": "5"})
    assert caught.value.value == "many"
    assert "lists all 2 problems" in caught.value.hint


def test_variables_that_are_no_settings_are_left_alone() -> None:
    names = ("STORE", "DEBUG", "CONFIG", "URL", "TOKEN")
    loaded = config.look(environment={f"HOLDFAST_{name}": "x" for name in names})
    assert (loaded.problems, dict(loaded.won)) == ((), {})
    assert config.look(environment={"HOLDFAST_HOST": "x"}).problems


def test_what_was_loaded_does_not_show_secrets() -> None:
    loaded = config.look(
        environment={
            "HOLDFAST_GATEWAY__TOKEN": "hush",
            "HOLDFAST_CHANNELS__CRM__URL": "https://ann:hush@example.org/hush?hush",
            "HOLDFAST_CHANNELS__CRM__SECRET": f"whsec_{'hush' * 8}",
        }
    )
    assert loaded.settings.gateway_token == "hush"
    assert loaded.settings.channels["crm"].url == "https://ann:hush@example.org/hush?hush"
    assert "hush" not in repr(loaded)


# -------------------------------------------------------------------------------- files


def test_tables_nest_and_empty_ones_name_agents_and_lanes(tmp_path: Path) -> None:
    path = tmp_path / "h.toml"
    path.write_text(
        "\ufeff[turn]\n[session.write_lock]\n[agents.ops]\n[lanes.bulk]\n[gateway]\n"
    )
    settings = config.load(file=str(path))
    assert set(settings.agents) == {"ops"}
    assert set(settings.lanes) == {*LANES, "bulk"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[trun]", "trun"), ("[turn]\nqueue_max = {most = 1}", "turn.queue_max.most"),
        ("turn = 5", "turn"), ('"turn.queue_max" = 5', "'turn.queue_max'"),
        ('[turn]\n"" = 5', "turn.''"), ("[agents.ops.more]", "agents.ops.more"),
        ("[turn]\nqueue_max = 1979-05-27", "turn.queue_max"), ("[[turn]]\n", "turn"),
        ("[turn]\nqueue_max = 5.0", "turn.queue_max"), ("[agents.'a b']", "agents.'a b'"),
    ],
)  # fmt: skip
def test_what_is_not_a_table_of_settings_is_refused(
    text: str, key: str, tmp_path: Path
) -> None:
    path = tmp_path / "h.toml"
    path.write_text(text)
    with pytest.raises(BadSettingError) as caught:
        config.load(file=str(path))
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"[turn]\nqueue_max = \n", 2), (b"[turn]\nqueue_max = 1\nqueue_max = 2\n", 3),
        (b"\n\nx = [1,\n", 3), (b"a = 1\nb = '\xff'\n", 2), (b"[turn\n", 1), (b"=", 1),
    ],
)  # fmt: skip
def test_a_file_that_is_not_toml_is_told_with_its_line(
    raw: bytes, line: int, tmp_path: Path
) -> None:
    path = tmp_path / "h.toml"
    path.write_bytes(raw)
    with pytest.raises(BadRequestError) as caught:
        config.load(file=str(path))
    assert str(caught.value).startswith(f"{path}:{line}: not ")


@given(st.binary(max_size=200) | st.text(alphabet='[]{}="\n.a1', max_size=60).map(str.encode))
def test_any_bytes_are_settings_or_an_input_error(raw: bytes) -> None:
    with NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        _load_or_refuse(file.name)


def _load_or_refuse(path: str) -> None:
    try:
        config.load(file=path)
    except HoldfastError as error:
        assert error.exit_code == 2


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.toml"):
        config.load(file=str(tmp_path / "gone.toml"))
    with pytest.raises(BadRequestError, match="directory"):
        config.load(file=str(tmp_path))
    with pytest.raises(BadRequestError, match="null"):
        config.load(file="a\0b")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 50_000)
    with pytest.raises(BadRequestError, match="deep"):
        config.load(file=str(tmp_path / "deep.toml"))
    (tmp_path / "large.toml").write_text("#" * 1_048_577)
    with pytest.raises(TooLargeError):
        config.load(file=str(tmp_path / "large.toml"))


def test_which_file_a_command_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDFAST_CONFIG", raising=False)
    assert config.file_for(None) is None
    Path("holdfast.toml").write_text("")
    assert config.file_for(None) == "holdfast.toml"
    monkeypatch.setenv("HOLDFAST_CONFIG", "other.toml")
    assert config.file_for(None) == "other.toml"
    assert config.file_for("mine.toml") == "mine.toml"
    monkeypatch.setenv("HOLDFAST_CONFIG", "")
    assert config.file_for(None) == "holdfast.toml"


async def test_the_library_reads_only_the_file_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("holdfast.toml").write_text("turn.queue_max = 7\nturn.max_attempts = 7")
    monkeypatch.setenv("HOLDFAST_CONFIG", "holdfast.toml")
    async with holdfast.open(tmp_path / "a") as hf:
        assert hf.settings.queue_max == 200
    monkeypatch.setenv("HOLDFAST_TURN__MAX_ATTEMPTS", "8")
    given = {"turn.max_reruns": 9}
    async with holdfast.open(tmp_path / "b", config="holdfast.toml", settings=given) as hf:
        found = hf.settings
    assert (found.queue_max, found.attempts_max, found.reruns_max) == (7, 8, 9)
    with pytest.raises(NotFoundError):
        async with holdfast.open(tmp_path / "c", config=tmp_path / "gone.toml"):
            pass
    assert not (tmp_path / "c").exists()


# ------------------------------------------------------------------ the founding system


@pytest.mark.parametrize(("old", "new"), [*FOUNDING_NAMES.items(), *FOUNDING_VARIABLES.items()])
def test_founding_names_are_taken_with_a_notice(
    old: str, new: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = find(new)
    assert key is not None
    way: dict[str, Any] = (
        {"environment": {old: "4321"}}
        if old in FOUNDING_VARIABLES
        else {"file": file_of({old: 4321}, tmp_path / "h.toml")}
    )
    assert getattr(config.load(**way), key.field) == 4321
    [record] = caplog.records
    assert (record.name, record.levelno) == ("holdfast", logging.WARNING)
    assert f"{old} is now {new}" in record.getMessage()
    caplog.clear()
    ours = {new: 5678} if old in FOUNDING_VARIABLES else {}
    if ours:
        way["file"] = file_of(ours, tmp_path / "h.toml")  # An earlier source, and yet.
    else:
        way["given"] = {new: 5678}
    assert getattr(config.load(**way), key.field) == 5678
    assert "wins" in caplog.records[0].getMessage()


def test_a_founding_variable_without_a_successor_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environment = {"OPENCLAW_SESSION_WRITE_LOCK_POLL_MS": "1", "OPENCLAW_HOME": "/x"}
    assert config.load(environment=environment) == Settings()
    [record] = caplog.records
    assert "OPENCLAW_SESSION_WRITE_LOCK_POLL_MS" in record.getMessage()


# -------------------------------------------------------------------------------- flags


def test_agent_flags() -> None:
    assert config.agent_flags([]) == {}
    assert config.agent_flags(["app:agent", "ops=pkg.mod:make.it"]) == {
        "agents.main.object": "app:agent", "agents.ops.object": "pkg.mod:make.it",
    }  # fmt: skip
    for wrong in (
        ["app"], ["=app:x"], ["a=b=c:d"], [""], ["a:b=c:d"], ["a:b", "c:d"],
        ["a:b", "main=c:d"], ["x=a:b", "x=a:b"],
    ):  # fmt: skip
        with pytest.raises(BadSettingError, match="--agent"):
            config.agent_flags(wrong)
    with pytest.raises(BadSettingError, match=r"agents\.Ops\.object"):
        config.load(given=config.agent_flags(["Ops=a:b"]))


# ------------------------------------------------------------------------------- schema

VALIDATOR = jsonschema_rs.Draft202012Validator(schema())
VALUES = st.one_of(
    st.integers(-1, 70_000), st.booleans(), st.just(2**31),
    st.sampled_from(
        ["", "5", "5s", "-5", "1e3", "60 parsecs", "turn", "true", "demo", "a:b", "a:b,c:d", "a b",
         "enqueue", "m", "a,,b", "\n", "\u00e9"]
    ),
    st.lists(st.sampled_from(["a:b", "a", "", 1]), max_size=2), st.just({}),
)  # fmt: skip
NAMES = [*SAMPLES, *FOUNDING_NAMES, "agents.own.model", "agents.own.tools", "turn.x", "trun.x",
         "agents.A.model", "lanes.bulk", "agents.ops", "lanes.bulk.x"]  # fmt: skip


def nested(values: dict[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, value in values.items():
        *tables, last = name.split(".")
        here = root
        for table in tables:
            here = here.setdefault(table, {})
        here[last] = value
    return root


AGENTS = [name for name in NAMES if name.startswith("agents.own.")]


@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3)
    | st.dictionaries(st.sampled_from(AGENTS), st.sampled_from(["demo", "a:b"]))
)
def test_the_schema_and_the_reader_agree(values: dict[str, Any]) -> None:
    if any(f"{name}." in other for name in values for other in values):
        return  # Not both a table and a value.
    refused = settle(each_given(values)).problems
    numeric = {n for n, v in values.items() if isinstance(v, str) and v in {"5", "5s"}}
    if {p.given.name for p in refused} & numeric:
        return  # The bounds of numbers in text are beyond a schema.
    assert VALIDATOR.is_valid(nested(values)) == (not refused)


def test_the_schema_takes_a_file_with_everything_and_the_docs_example(tmp_path: Path) -> None:
    path = file_of(SAMPLES, tmp_path / "h.toml")
    VALIDATOR.validate(tomllib.loads(Path(path).read_text()))
    assert config.look(file=path).problems == ()
    [example] = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    VALIDATOR.validate(tomllib.loads(example))
    (tmp_path / "e.toml").write_text(example)
    assert set(config.load(file=str(tmp_path / "e.toml")).agents) == {
        "main", "ops", "elsewhere",
    }  # fmt: skip
    assert "default" not in schema()["properties"]["gateway"]["properties"]["token"]


# --------------------------------------------------------------------------------- docs


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def shown(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case ():
            return "`[]`"
        case _:
            return f"`{value}`"


def test_the_docs_say_what_the_table_says() -> None:
    rows = [cells(line) for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    wanted = [
        [f"`{name}`", shown(default_of(name)), forms.allowed(name, key), key.help]
        for name, key in KEYS.items()
    ]
    for family, told in FAMILIES.items():
        for last, key in told.keys.items():
            name = f"{family}.{told.member}.{last}"
            wanted.append([f"`{name}`", "", forms.allowed(name, key), key.help])
    for old, new in [*FOUNDING_NAMES.items(), *FOUNDING_VARIABLES.items()]:
        wanted.append([f"`{old}`", f"`{new}`"])
    assert rows == wanted


def test_the_docs_name_the_lanes_as_they_are() -> None:
    text = " ".join(DOCS.read_text().split())
    for name, lane in LANES.items():
        assert f"{name} {lane.concurrency} · {lane.priority}" in text
    given = Given("lanes.bulk", {})
    lane = settle([given]).settings.lane("bulk")
    assert f"has {lane.concurrency} · {lane.priority}" in text
