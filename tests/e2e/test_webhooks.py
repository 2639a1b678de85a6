"""
Webhooks both ways, with real processes, a real receiver that misbehaves, and SIGKILL.

What must hold whatever happens: the receiver acts on each key once, every attempt at a key
carries the same bytes, and each address gets its parts in order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.channels.signing import WINDOW_S, sign
from holdfast.testing.receiver import Answer, Receiver
from support.serving import Served, events

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OLD_SECRET = "whsec_" + "QUFB" * 8
LONG = "word " * 90  #: In three parts, with what the demo adds.


def serve(state: Path, receiver: Receiver, **more: str) -> Served:
    env = {
        "HOLDFAST_CHANNELS__CRM__URL": receiver.url,
        "HOLDFAST_CHANNELS__CRM__SECRET": SECRET,
        "HOLDFAST_CHANNELS__CRM__PART_CHARS": "200",
        **{f"HOLDFAST_{name}": value for name, value in more.items()},
    }
    return Served(state, env=env)


def send(http: httpx.Client, text: str, to: str, key: str = "main") -> str:
    answer = http.post(
        f"/v1/sessions/{key}/messages", json={"text": text, "target": f"crm:{to}"}
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["turn_id"])


def followed(http: httpx.Client, turn_id: str) -> list[tuple[str, Any]]:
    """Everything that happens to a turn, until nothing is owed any more."""
    with http.stream("GET", f"/v1/turns/{turn_id}/events") as stream:
        return [(kind, data) for kind, data, _ in events(stream.iter_lines())]


def check(receiver: Receiver, turns: dict[str, list[str]]) -> None:
    """*turns*: by address, in the order in which they were sent."""
    assert receiver.mismatches == [], "the same bytes at every attempt"
    assert all(each.signed for each in receiver.received)
    for to, turn_ids in turns.items():
        got = receiver.processed_by(to)
        parts: dict[str, int] = {}
        for each in receiver.received:
            parts[each.told["turn_id"]] = each.told["parts"]
        assert got == [
            f"{turn_id}.{n}" for turn_id in turn_ids for n in range(1, parts[turn_id] + 1)
        ], "in order, each once, none missing"


def test_killed_in_the_middle_of_an_attempt_it_is_sent_again_and_acted_on_once(
    tmp_path: Path,
) -> None:
    held = Answer(when='"part":2').held()
    assert held.gate is not None
    assert held.reached is not None
    with Receiver([held], secret=SECRET) as receiver:
        with serve(tmp_path / "s", receiver) as served:
            with served.client() as http:
                first = send(http, LONG, "ann")
                assert held.reached.wait(20)
                second = send(http, LONG, "ann")
                other = send(http, LONG, "bob", "agent:main:other")
                assert receiver.wait(lambda: len(receiver.processed_by("bob")) >= 3)
                assert receiver.processed_by("ann") == [f"{first}.1"], "bob waits for nobody"
                served.kill()
            served.start()
            with served.client() as http:
                told = followed(http, first)
                followed(http, second)
                followed(http, other)
                assert http.get(f"/v1/turns/{first}").json()["state"] == "done"
            held.gate.set()  # What the dead process had sent is acted on only now.
            assert receiver.wait(lambda: len(receiver.received) >= 10)
            check(receiver, {"ann": [first, second], "bob": [other]})
            again = [data for kind, data in told if kind == "delivered" and data["part"] == 2]
            assert again[0]["attempts"] == 2
            assert "sent again under the same key" in again[0]["hint"]


def test_whatever_the_receiver_does_each_part_is_acted_on_once_and_in_order(
    tmp_path: Path,
) -> None:
    bad = [
        Answer(500, when="message 0"),
        Answer(drop="after", when="message 1"),
        Answer(drop="before", when="message 2"),
        Answer(429, retry_after="1", when="message 3"),
        Answer(late=True, when="message 4"),
    ]
    with Receiver(bad, secret=SECRET, duplicate=409) as receiver:
        settings = {"CHANNELS__CRM__TIMEOUT_MS": "1s"}
        with (
            serve(tmp_path / "s", receiver, **settings) as one,
            serve(tmp_path / "s", receiver, **settings) as two,
            one.client() as http,
            two.client() as other,
        ):
            turns: dict[str, list[str]] = {}
            for number in range(12):
                to = f"peer{number % 3}"
                through = http if number % 2 else other
                turn_id = send(through, f"message {number}", to, f"agent:main:{to}")
                turns.setdefault(to, []).append(turn_id)
            for turn_ids in turns.values():
                for turn_id in turn_ids:
                    followed(http, turn_id)
            check(receiver, turns)


def test_a_drain_waits_for_what_is_being_sent(tmp_path: Path) -> None:
    held = Answer().held()
    assert held.gate is not None
    assert held.reached is not None
    with Receiver([held], secret=SECRET) as receiver:
        with serve(tmp_path / "s", receiver) as served, served.client() as http:
            turn_id = send(http, "hello", "ann")
            assert held.reached.wait(20)
            served.signal(signal.SIGTERM)
            while http.get("/readyz").status_code != 503:
                pass
            held.gate.set()
            code, _ = served.wait()
            assert code == 0
            served.start()
            with served.client() as again:
                told = [data for kind, data in followed(again, turn_id) if kind == "delivered"]
        assert [data["attempts"] for data in told] == [1]
        assert len(receiver.received) == 1


def test_the_receiver_is_a_process_too(tmp_path: Path) -> None:
    script, log = tmp_path / "script", tmp_path / "log"
    script.write_text('{"drop": "after"}\n')
    command = [sys.executable, "-m", "holdfast.testing.receiver", "--script", str(script)]
    with subprocess.Popen(
        [*command, "--log", str(log), "--secret", SECRET], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        headers = sign([SECRET], "key-1", int(time.time()), b"{}")
        with pytest.raises(httpx.HTTPError):
            httpx.post(url, content=b"{}", headers=headers)
        assert httpx.post(url, content=b"{}", headers=headers).status_code == 200
        assert httpx.post(url, content=b"{}").status_code == 401
        process.send_signal(signal.SIGTERM)
        summary = json.loads(process.stdout.read())
    assert (summary["requests"], summary["processed"], summary["unsigned"]) == (3, 1, 1)
    assert [json.loads(line)["processed"] for line in log.read_text().splitlines()] == [
        True, False, False,
    ]  # fmt: skip


# ------------------------------------------------------------------------------- incoming


def post(
    served: Served, body: Any, *, message_id: str = "m1", secret: str = SECRET,
    at_s: float | None = None, channel: str = "crm", **changes: str,
) -> httpx.Response:  # fmt: skip
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = sign([secret], message_id, int(time.time() if at_s is None else at_s), raw)
    return httpx.post(
        f"{served.url}/v1/hooks/{channel}", content=raw, headers={**headers, **changes}
    )


def test_a_signed_message_is_accepted_once_and_its_reply_goes_back(tmp_path: Path) -> None:
    with Receiver(secret=SECRET) as receiver, serve(tmp_path / "s", receiver) as served:
        answer = post(served, {"text": "hello", "peer": "ann", "sender": "Ann"})
        assert answer.status_code == 202, answer.text
        receipt = answer.json()
        assert receipt["fresh"]
        again = post(served, {"text": "hello", "peer": "ann", "sender": "Ann"})
        assert (again.status_code, again.json()["turn_id"]) == (202, receipt["turn_id"])
        assert not again.json()["fresh"]
        assert receiver.wait(lambda: len(receiver.processed) == 1)
        [got] = receiver.received
        assert (got.told["to"], got.told["turn_id"]) == ("ann", receipt["turn_id"])
        conflict = post(served, {"text": "another", "peer": "ann", "sender": "Ann"})
        assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
        elsewhere = post(served, {"text": "x", "reply_to": "ops-room"}, message_id="m2")
        assert elsewhere.status_code == 202
        assert receiver.wait(lambda: bool(receiver.processed_by("ops-room")))


def test_whatever_is_not_signed_or_not_allowed_is_refused(tmp_path: Path) -> None:
    with (
        Receiver(secret=SECRET) as receiver,
        serve(
            tmp_path / "s",
            receiver,
            CHANNELS__CRM__OLD_SECRET=OLD_SECRET,
            CHANNELS__CRM__SENDERS="ann, bob",
            GATEWAY__MAX_BODY_BYTES="2000",
        ) as served,
    ):
        hello = {"text": "hello", "sender": "ann"}
        now_s = time.time()
        bad = [
            (post(served, hello, secret="whsec_" + "b3Ro" * 8), 401, "bad_signature"),
            (post(served, hello, at_s=now_s - WINDOW_S - 60), 401, "bad_signature"),
            (post(served, hello, at_s=now_s + WINDOW_S + 60), 401, "bad_signature"),
            (post(served, hello, **{"webhook-id": "another"}), 401, "bad_signature"),
            (post(served, b"not json", secret=OLD_SECRET + "QQ=="), 401, "bad_signature"),
            (post(served, hello, channel="other"), 404, "not_found"),
            (post(served, {"text": "x" * 3000}), 413, "too_large"),
            (post(served, b"not json"), 400, "bad_request"),
            (post(served, {**hello, "txt": 1}), 422, "bad_field"),
            (post(served, {**hello, "peer": "a", "key": "main"}), 422, "bad_field"),
            (post(served, {**hello, "thread": "a"}), 422, "bad_field"),
            (post(served, {**hello, "key": "agent:other:main"}), 422, "bad_field"),
            (post(served, {**hello, "key": "nonsense"}), 422, "bad_key"),
            (post(served, {**hello, "sender": "eve"}), 403, "sender_refused"),
            (post(served, {"text": "hello"}), 403, "sender_refused"),
        ]
        for answer, status, code in bad:
            assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
            assert SECRET not in answer.text
        with served.client() as http:
            assert http.get("/v1/sessions").json()["sessions"] == [], "nothing was accepted"
        for number, secret in enumerate((SECRET, OLD_SECRET)):  # Both are good meanwhile.
            answer = post(served, hello, message_id=f"good{number}", secret=secret)
            assert answer.status_code == 202, answer.text


def test_a_channel_without_a_secret_is_refused_by_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "serve", "--store", str(tmp_path / "s")],
        env={**os.environ, "HOLDFAST_CHANNELS__CRM__URL": "http://127.0.0.1:9/"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "channels.crm.secret" in done.stderr
