"""The door over HTTP: what goes in, what comes out, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from holdfast.testing import ModelServer, ScriptedModel, Step
from support.door import door, until
from support.serving import Served, events


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model: ModelServer) -> Iterator[Served]:
    state = tmp_path_factory.mktemp("served") / "state"
    env = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "sk-secret-key-of-the-model"}
    with Served(state, "--model", "openai-chat:any", env=env) as server:
        yield server


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a whole problem document, and says what it should."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == status
    assert said["code"] == code
    assert {"type", "title", "detail", "hint"} <= said.keys()
    return dict(said)


# ------------------------------------------------------------------------- messages, turns


def test_a_message_is_accepted_and_answered(http: httpx.Client) -> None:
    receipt = http.post("/v1/sessions/main/messages", json={"text": "one"})
    assert receipt.status_code == 202
    said = receipt.json()
    assert said["fresh"] is True
    assert said["position"] == 0
    answered = http.post(
        "/v1/sessions/main/messages", params={"wait": 20}, json={"text": "two"}
    )
    assert answered.status_code == 200
    assert answered.json()["outcome"] == "replied"
    assert answered.json()["text"] == "reply to: two"
    turn = http.get(f"/v1/turns/{said['turn_id']}").json()
    assert (turn["state"], turn["outcome"], turn["text"]) == (
        "done",
        "replied",
        "reply to: one",
    )
    assert turn["session"] == "agent:main:main"


def test_waiting_too_short_gives_the_receipt(http: httpx.Client, model: ModelServer) -> None:
    held = model.hold(when="held for the receipt")
    answer = http.post(
        "/v1/sessions/agent:main:short/messages",
        params={"wait": 0.05},
        json={"text": "held for the receipt"},
    )
    assert answer.status_code == 202
    assert held.gate is not None
    held.gate.set()
    with http.stream("GET", f"/v1/turns/{answer.json()['turn_id']}/events") as stream:
        assert list(events(stream.iter_lines()))[-1][1]["outcome"] == "replied"


def test_an_idempotency_key_is_one_message_and_conflicts_with_another_text(
    http: httpx.Client,
) -> None:
    path, key = "/v1/sessions/agent:main:idem/messages", "m-1"
    first = http.post(path, json={"text": "a", "idempotency_key": key}).json()
    again = http.post(path, json={"text": "a", "idempotency_key": key}).json()
    assert again["turn_id"] == first["turn_id"]
    assert again["fresh"] is False
    refused = http.post(path, json={"text": "b", "idempotency_key": key})
    assert problem(refused, 409, "idempotency_conflict")["turn_id"] == first["turn_id"]


def test_a_failed_provider_is_a_502_that_names_the_turn(
    http: httpx.Client, model: ModelServer
) -> None:
    model.add(Step.fail("unauthorized").keyed("fail me"))
    answer = http.post(
        "/v1/sessions/agent:main:fails/messages", params={"wait": 20}, json={"text": "fail me"}
    )
    said = problem(answer, 502, "provider_failed")
    assert said["reason"] == "auth"
    assert http.get(f"/v1/turns/{said['turn_id']}").json()["outcome"] == "failed"


def test_a_waiting_turn_is_cancelled(http: httpx.Client, model: ModelServer) -> None:
    held = model.hold(when="hold the session")
    path = "/v1/sessions/agent:main:cancel/messages"
    first = http.post(path, json={"text": "hold the session"}).json()
    second = http.post(path, json={"text": "never mind"}).json()
    assert second["position"] == 1
    cancelled = http.post(f"/v1/turns/{second['turn_id']}/cancel").json()
    assert cancelled["outcome"] == "cancelled"
    assert held.gate is not None
    held.gate.set()
    with http.stream("GET", f"/v1/turns/{first['turn_id']}/events") as stream:
        assert list(events(stream.iter_lines()))[-1][1]["outcome"] == "replied"


def test_keys_are_percent_encoded(http: httpx.Client) -> None:
    key = "agent:main:matrix:room:!Straße#münchen:example.org"
    path = f"/v1/sessions/{quote(key, safe='')}"
    sent = http.post(f"{path}/messages", params={"wait": 20}, json={"text": "grüezi"})
    assert sent.json()["text"] == "reply to: grüezi"
    assert http.get(path).json()["keys"] == [key]
    slashed = http.get(f"/v1/sessions/{quote('agent:main:a/b', safe='')}")
    assert problem(slashed, 422, "bad_key")["key"] == "agent:main:a/b"
    problem(http.get("/v1/sessions/%ff%fe"), 422, "bad_key")


# ---------------------------------------------------------------------------------- events


def test_events_tell_a_turn_from_beginning_to_end_and_again_from_any_id(
    http: httpx.Client, model: ModelServer
) -> None:
    held = model.hold(after=2, when="tell me live")
    assert held.gate is not None
    assert held.reached is not None
    turn = http.post("/v1/sessions/agent:main:live/messages", json={"text": "tell me live"})
    path = f"/v1/turns/{turn.json()['turn_id']}/events"
    seen = []
    with http.stream("GET", path) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for kind, data, event_id in events(stream.iter_lines()):
            seen.append((kind, data, event_id))
            if kind == "text":
                held.gate.set()
    kinds = [kind for kind, _, _ in seen]
    assert kinds[0] == "accepted"
    assert kinds[-2:] == ["committed", "outcome"]
    assert "".join(d["text"] for k, d, _ in seen if k == "text") == "reply to: tell me live"
    numbered = [event_id for _, _, event_id in seen if event_id]
    assert [k for k, _, event_id in seen if event_id] == [
        kind for kind in kinds if kind in {"started", "text"}
    ]
    with http.stream("GET", path, headers={"Last-Event-ID": numbered[1]}) as stream:
        again = list(events(stream.iter_lines()))
    assert [event_id for _, _, event_id in again if event_id] == numbered[2:]
    assert again[-1] == seen[-1]


@pytest.mark.parametrize("bad", ["x", "1", "1.", ".1", "-1.2", "1.2.3", "1e3.2", "٣.١"])
def test_a_bad_last_event_id_is_refused(http: httpx.Client, bad: str) -> None:
    turn = http.post("/v1/sessions/main/messages", params={"wait": 20}, json={"text": "x"})
    path = f"/v1/turns/{turn.json()['turn_id']}/events"
    headers = {"Last-Event-ID": bad.encode()}
    problem(http.get(path, headers=headers), 400, "bad_request")  # type: ignore[arg-type]


def test_after_the_log_is_gone_the_outcome_is_all_there_is(
    http: httpx.Client, served: Served
) -> None:
    sent = http.post("/v1/sessions/main/messages", params={"wait": 20}, json={"text": "old"})
    turn_id = sent.json()["turn_id"]
    for log in (served.state / "live").glob(f"{turn_id}.*"):
        log.unlink()
    with http.stream("GET", f"/v1/turns/{turn_id}/events") as stream:
        kinds = [kind for kind, _, _ in events(stream.iter_lines())]
    assert kinds == ["outcome"]


# -------------------------------------------------------------------------- sessions, pages


def test_entries_are_paged_in_order_and_followed_live(http: httpx.Client) -> None:
    path = "/v1/sessions/agent:main:pages"
    for text in ("first", "second", "third"):
        http.post(f"{path}/messages", params={"wait": 20}, json={"text": text})
    whole = http.get(f"{path}/entries").json()
    found: list[Any] = []
    after = ""
    while page := http.get(
        f"{path}/entries", params={"limit": 2, **({"after": after} if after else {})}
    ).json():
        if not page["entries"]:
            break
        found += page["entries"]
        after = page["next"]
    assert found == whole["entries"]
    assert len(found) == 6
    last = http.get(f"{path}/entries", params={"last": 1}).json()
    assert last["entries"] == found[-1:]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": found[-1]["cursor"]}
    with http.stream("GET", f"{path}/entries", headers=headers) as stream:
        live = events(stream.iter_lines())
        http.post(f"{path}/messages", json={"text": "fourth"})
        told = (data["entry"] for kind, data, _ in live if kind == "entry")
        texts = [next(told)["message"]["content"][0]["text"] for _ in range(2)]
    assert texts == ["fourth", "reply to: fourth"]


def test_sessions_are_listed_page_by_page(http: httpx.Client) -> None:
    for name in ("a", "b", "c"):
        http.post(f"/v1/sessions/agent:main:listed-{name}/messages", json={"text": "x"})
    whole = http.get("/v1/sessions").json()["sessions"]
    found, after = [], None
    while True:
        params = {"limit": 2} if after is None else {"limit": 2, "after": after}
        page = http.get("/v1/sessions", params=params).json()
        found += [each["session_id"] for each in page["sessions"]]
        after = page["next"]
        if after is None:
            break
    assert found == [each["session_id"] for each in whole]
    problem(http.get("/v1/sessions/agent:main:nowhere"), 404, "not_found")


# ------------------------------------------------------------------------------ who may come


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", "Basic {token}", "Bearer {token}x", "{token}"],
)
def test_without_the_token_nothing_but_health_is_told(
    served: Served, authorization: str | None
) -> None:
    headers = {}
    if authorization is not None:
        headers["Authorization"] = authorization.format(token=served.token)
    with httpx.Client(base_url=served.url, headers=headers) as http:
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code == 200
        for path in ("/v1/sessions", "/v1/turns/x", "/metrics", "/openapi.json", "/nope"):
            refused = http.get(path)
            problem(refused, 401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
            assert served.token not in refused.text


def test_the_token_is_private_and_all_starters_agree(served: Served) -> None:
    path = served.state / "gateway.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    with Served(served.state) as second, second.client() as http:
        assert http.get("/v1/sessions").status_code == 200


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Host", "evil.example"),
        ("Host", "evil.example:8787"),
        ("Host", "127.0.0.1.evil.example"),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://localhost:1"),
    ],
)
def test_a_browser_led_here_by_another_site_is_refused(
    http: httpx.Client, header: str, value: str
) -> None:
    said = problem(http.get("/v1/sessions", headers={header: value}), 403, "forbidden")
    assert said["header"] == header


def test_own_origin_and_loopback_names_pass(http: httpx.Client, served: Served) -> None:
    port = served.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert http.get("/v1/sessions", headers=headers).status_code == 200


def test_elsewhere_than_on_loopback_needs_an_explicit_token(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "holdfast", "serve", "--host", "0.0.0.0", "--port", "0",
         "--store", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "explicit token" in refused.stderr
    assert not (tmp_path / "gateway.token").exists()
    env = {"HOLDFAST_GATEWAY__TOKEN": "given-from-outside"}
    with Served(tmp_path / "s", "--host", "0.0.0.0", env=env) as served:
        url = f"http://127.0.0.1:{served.url.rpartition(':')[2]}/v1/sessions"
        assert httpx.get(url).status_code == 401
        given = {"Authorization": "Bearer given-from-outside"}
        assert httpx.get(url, headers=given).status_code == 200
        assert not (tmp_path / "s" / "gateway.token").exists()


def test_a_port_that_is_taken_is_said_so(served: Served, tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "holdfast", "serve", "--port", served.url.rpartition(":")[2],
         "--store", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "gateway.port" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2, "one line about the demo, one about the port"


# -------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("body", "status", "code", "name"),
    [
        (b"not json", 400, "bad_request", None),
        (b"", 400, "bad_request", None),
        (b"\xff\xfe", 400, "bad_request", None),
        (b'{"text": "a"', 400, "bad_request", None),
        (b"[" * 100_000, 422, "bad_field", "body"),
        (b"[]", 422, "bad_field", "body"),
        (b'"text"', 422, "bad_field", "body"),
        (b"{}", 422, "bad_field", "text"),
        (b'{"text": 4}', 422, "bad_field", "text"),
        (b'{"text": null}', 422, "bad_field", "text"),
        (b'{"text": "a", "lane": 1}', 422, "bad_field", "lane"),
        (b'{"text": "a", "polcy": "reject"}', 422, "bad_field", "polcy"),
        (b'{"text": "a", "lane": "nowhere"}', 422, "unknown_lane", None),
        (b'{"text": "a", "policy": "parallel"}', 422, "unknown_policy", None),
        (b'{"text": " "}', 400, "bad_request", None),
        (b'{"text": "\\ud800"}', 400, "bad_request", None),
        (b'{"text": "a", "source": ""}', 400, "bad_request", None),
        (b'{"text": "a", "idempotency_key": ""}', 400, "bad_request", None),
    ],
)
def test_a_bad_body_is_refused_by_name(
    http: httpx.Client, body: bytes, status: int, code: str, name: str | None
) -> None:
    said = problem(http.post("/v1/sessions/main/messages", content=body), status, code)
    assert said.get("name") == name


@pytest.mark.parametrize("wait", ["x", "-1", "nan", "1e9", "inf", ""])
def test_a_bad_wait_is_refused(http: httpx.Client, wait: str) -> None:
    answer = http.post(f"/v1/sessions/main/messages?wait={wait}", json={"text": "x"})
    assert problem(answer, 422, "bad_field")["name"] == "?wait"


def test_large_bodies_are_refused_with_their_size(http: httpx.Client) -> None:
    told = http.post("/v1/sessions/main/messages", content=b"x" * 10_000_000)
    assert problem(told, 413, "too_large")["size"] == 10_000_000

    def untold() -> Iterator[bytes]:
        for _ in range(160):
            yield b"x" * 65_536

    problem(http.post("/v1/sessions/main/messages", content=untold()), 413, "too_large")
    long = http.post("/v1/sessions/main/messages", json={"text": "x" * 1_048_577})
    assert problem(long, 413, "too_large")["limit"] == 1_048_576


def test_paths_and_methods_that_are_not_there(http: httpx.Client) -> None:
    problem(http.get("/v1/nothing"), 404, "no_such_path")
    refused = http.put("/v1/sessions/main/messages", json={"text": "x"})
    assert problem(refused, 405, "method_not_allowed")["allowed"] == "POST"
    problem(http.get("/v1/turns/none/events"), 404, "not_found")
    problem(http.post("/v1/turns/none/cancel"), 404, "not_found")


def raw(served: Served, sent: bytes, *, read: bool = True) -> bytes:
    """One connection: what is sent as it is, and what comes until the server closes."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(sent)
        answer = b""
        while read and (more := connection.recv(65_536)):
            answer += more
        return answer


def test_a_flood_of_headers_is_cut_off(served: Served) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    many = b"".join(b"X-%d: y\r\n" % n for n in range(150))
    answer = raw(served, head + many + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"too_many_headers" in answer
    long = raw(served, head + b"X-Long: " + b"y" * 40_000)
    assert long.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in long
    junk = raw(served, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
    assert junk.startswith(b"HTTP/1.1 400 ")


def test_a_turn_that_has_replied_is_not_rolled_back(http: httpx.Client) -> None:
    key = "agent:main:said"
    said = http.post(f"/v1/sessions/{key}/messages", params={"wait": 20}, json={"text": "x"})
    where = f"/v1/turns/{said.json()['turn_id']}/cancel"
    problem(http.post(where, params={"rollback": "true"}), 409, "rejected")
    problem(http.post(where, params={"rollback": "perhaps"}), 422, "bad_field")
    assert http.post(where).json()["outcome"] == "replied"


def test_metrics_count_what_happened(http: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    names = (
        'holdfast_accepted_total{lane="user"}',
        'holdfast_outcomes_total{lane="user",outcome="replied"}',
        "holdfast_wait_seconds_count",
    )
    before = [value(name) for name in names]
    http.post(
        "/v1/sessions/agent:main:counted/messages", params={"wait": 20}, json={"text": "x"}
    )
    after = [value(name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]
    assert value("holdfast_write_lock_hold_seconds_count") > 0
    assert value("holdfast_leases") >= 0


def test_the_interface_tells_exactly_the_routes(http: httpx.Client) -> None:
    from holdfast.gateway.app import API

    told = http.get("/openapi.json").json()["paths"]
    there = {route.path: (route.methods or set()) - {"HEAD"} for route in API}
    assert {path: {m.upper() for m in each} for path, each in told.items()} == there


def test_the_log_has_no_secret(served: Served, http: httpx.Client) -> None:
    """Also with -v, after requests with bad tokens, keys in queries, and failed models."""
    http.get("/v1/sessions", params={"token": "in-a-query"})
    http.get("/v1/sessions", headers={"Authorization": "Bearer guess-of-a-token"})
    log = served.log.read_text()
    assert "POST /v1/sessions" in log, "the log was looked at"
    for secret in (served.token, "sk-secret-key", "guess-of-a-token", "in-a-query"):
        assert secret not in log
    assert json.dumps(served.token)[1:-1] not in log
    assert os.environ.get("OPENAI_API_KEY", "sk-secret-key") not in log


# -------------------------------------------------------------- contention, and who goes away


async def test_a_full_queue_and_a_busy_session_say_when_to_come_again(tmp_path: Path) -> None:
    go = asyncio.Event()
    model = ScriptedModel(gate=lambda prompt, position: go.wait())
    async with door(tmp_path, model, settings={"turn.queue_max": 1}) as here:
        async with here.http() as http:
            path = "/v1/sessions/main/messages"
            await http.post(path, json={"text": "runs"})
            await until(lambda: model.prompts)
            assert (await http.post(path, json={"text": "waits"})).status_code == 202
            full = await http.post(path, json={"text": "one too many"})
            assert problem(full, 429, "queue_full")["limit"] == 1
            assert int(full.headers["retry-after"]) >= 1
            busy = await http.post(path, json={"text": "now or never", "policy": "reject"})
            problem(busy, 409, "rejected")
            turns = await here.hf.store.control.turns()
            assert len(turns) == 2, "who is refused leaves no row behind"
            go.set()


@pytest.mark.parametrize("cancels", [False, True], ids=["answered all the same", "cancelled"])
async def test_a_client_that_goes_away_while_it_waits(tmp_path: Path, cancels: bool) -> None:
    go = asyncio.Event()
    model = ScriptedModel(gate=lambda prompt, position: go.wait())
    settings = {"gateway.cancel_on_disconnect": cancels}
    async with door(tmp_path, model, settings=settings) as here:
        async with here.http() as http:
            path = "/v1/sessions/main/messages"
            waiting = asyncio.create_task(
                http.post(path, params={"wait": 60}, json={"text": "bye"})
            )
            await until(lambda: model.prompts)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        turn_id = model.prompts[0].turn_id
        if not cancels:
            await until(lambda: not here.connections())
            go.set()
        outcome = [event async for event in here.hf.follow(turn_id)][-1].data
        assert outcome["outcome"] == ("cancelled" if cancels else "replied")
