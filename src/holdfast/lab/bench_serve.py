"""
What serving costs: a turn through HTTP beside its bare model call, and a full house.

The server is a real `holdfast serve` process, the model another, the clients a third; health
is asked for by this one.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.lab.crew import Crew
from holdfast.lab.figures import ms, quantile, quiet, scratch, summary_ms
from holdfast.lab.unhooked import Unhooked
from holdfast.testing import ModelServer
from holdfast.testing.model_server import Step
from holdfast.types import Prompt, Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast.lab.child import Child
    from holdfast.lab.figures import Report

__all__ = ["bench_serve"]

_HERE: Final = "holdfast.lab.bench_serve:"
WARMUP: Final = 20
SESSION_TURNS: Final = 10  #: As in `bench turn`: a model's prompt grows with its session.
IDLE_STREAMS: Final = 500
RUNNING_TURNS: Final = 100
HEALTH_ROUNDS: Final = 1_000
#: Long enough to last through the health rounds, at a usual model's pace.
REPLY_TOKENS: Final = 4_000
TOKEN_DELAY_S: Final = 0.05


def bench_serve(
    directory: str | None, *, quick: bool = False, report: Report | None = None
) -> dict[str, Any]:
    """
    Measure serving.

    Args:
        directory: where to make a scratch directory; None: on a disk somewhere.
        quick: a tenth of the rounds, for a look.
        report: told what is being done.

    Returns:
        The JSON of `holdfast bench serve`.
    """
    told = report or quiet
    pairs, rounds = (30, 100) if quick else (300, HEALTH_ROUNDS)
    with scratch(directory) as where:
        told(f"serve: {pairs} turns over HTTP, each beside its bare model call …")
        overhead = _overhead(os.path.join(where, "overhead"), pairs)
        told(f"serve: {IDLE_STREAMS} idle streams, then {RUNNING_TURNS} running turns …")
        house = _full_house(os.path.join(where, "house"), rounds)
    return {**overhead, **house}


# -------------------------------------------------------------------------------- overhead


def _overhead(state: str, pairs: int) -> dict[str, Any]:
    with Crew() as crew:
        crew.start("model", _HERE + "serve_model")
        base_url = str(crew.wait("ready")["model"]["base_url"])
        with _served(state, base_url) as served:
            return asyncio.run(_pairs(served, base_url, pairs))


async def serve_model(child: Child) -> None:
    """A model that answers at once, until the parent is done with it."""
    with ModelServer() as server:
        await child.ready(base_url=server.base_url)


async def _pairs(served: Served, base_url: str, pairs: int) -> dict[str, Any]:
    """
    Session by session: its turns over HTTP, then the same prompts asked bare.

    In blocks, because either side is served by caches that the other one cools: taken turn by
    turn, the server would do each of its turns cold, which no busy server does.
    """
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=base_url, api_key="bench")
    model = OpenAIChatModel("bench", provider=provider)
    agent = PydanticAgent(model)
    connection = served.connect()
    waited, first = list[int](), list[int]()
    async with model:
        for n in range((WARMUP + pairs) // SESSION_TURNS):
            told, streamed = f"agent:main:wait:{n}", f"agent:main:stream:{n}"
            texts = [f"How deep is the water at buoy {n}.{k}?" for k in range(SESSION_TURNS)]
            through = [_message(connection, served, told, text) for text in texts]
            bare = await _bare_session(agent, texts, served.history(connection, told))
            shown = [_first_token(connection, served, streamed, text) for text in texts]
            again = await _bare_session(agent, texts, served.history(connection, streamed))
            if n * SESSION_TURNS >= WARMUP:
                waited += [a - b for a, (_, b) in zip(through, bare, strict=True)]
                first += [a - b for a, (b, _) in zip(shown, again, strict=True)]
    connection.close()
    return {"overhead": summary_ms(waited), "first_token": summary_ms(first)}


async def _bare_session(
    agent: PydanticAgent, texts: list[str], history: tuple[Mapping[str, Any], ...]
) -> list[tuple[int, int]]:
    """Each of *texts* with what stood before it in the session."""
    return [await _bare(agent, text, history[: 2 * n]) for n, text in enumerate(texts)]


async def _bare(
    agent: PydanticAgent, text: str, history: tuple[Mapping[str, Any], ...]
) -> tuple[int, int]:
    """Nanoseconds to the first text and to the end."""
    prompt = Prompt("", "", "", "main", "user", "api", text, history, 1)
    first_ns, start_ns = 0, perf_counter_ns()
    async with aclosing(agent.respond(prompt, Unhooked())) as events:
        async for event in events:
            if isinstance(event, Text) and not first_ns:
                first_ns = perf_counter_ns() - start_ns
    return first_ns, perf_counter_ns() - start_ns


def _message(
    connection: http.client.HTTPConnection, served: Served, key: str, text: str
) -> int:
    """Nanoseconds from sending a message to holding its outcome."""
    start_ns = perf_counter_ns()
    answer = served.post(connection, f"/v1/sessions/{key}/messages?wait=60", {"text": text})
    outcome = json.loads(answer.read())
    took_ns = perf_counter_ns() - start_ns
    assert outcome["outcome"] == "replied", outcome
    return took_ns


def _first_token(
    connection: http.client.HTTPConnection, served: Served, key: str, text: str
) -> int:
    """Nanoseconds from asking for a completion to the first text of its stream."""
    body = {"model": "main", "stream": True, "messages": [{"role": "user", "content": text}]}
    start_ns = perf_counter_ns()
    answer = served.post(connection, "/v1/chat/completions", body, {"X-Holdfast-Session": key})
    took_ns = 0
    while line := answer.readline():
        if (
            not took_ns
            and line.startswith(b"data: {")
            and json.loads(line[6:])["choices"][0]["delta"].get("content")
        ):
            took_ns = perf_counter_ns() - start_ns
    assert took_ns, "no text came"
    return took_ns


# ------------------------------------------------------------------------------ full house


def _full_house(state: str, rounds: int) -> dict[str, Any]:
    with Crew() as crew:
        crew.start("model", _HERE + "serve_slow_model")
        base_url = str(crew.wait("ready")["model"]["base_url"])
        room = {
            "HOLDFAST_LANES__USER__CONCURRENCY": str(RUNNING_TURNS),
            "HOLDFAST_GATEWAY__MAX_CONNECTIONS": str(3 * IDLE_STREAMS),
        }
        with _served(state, base_url, room) as served, Crew() as clients:
            _warm(served)
            clients.start("clients", _HERE + "crowd", url=served.url, token=served.token)
            # The first five hundred take what was free already; the next ones show the price.
            clients.wait("filled")
            before_kb = served.rss_kb()
            clients.order("more")
            clients.wait("ready")
            idle_kb = served.rss_kb() - before_kb
            clients.order("go")
            clients.wait("running")
            health = _health(served, rounds)
    return {
        "streams": IDLE_STREAMS,
        "running": RUNNING_TURNS,
        "kb_per_idle_stream": round(idle_kb / IDLE_STREAMS, 1),
        "healthz": summary_ms(health) | {"max_ms": ms(max(health))},
        "healthz_p99_9_ms": ms(quantile(health, 0.999)),
    }


async def serve_slow_model(child: Child) -> None:
    """A model that talks for minutes."""
    reply = Step.reply(*(["word "] * REPLY_TOKENS), delay_s=TOKEN_DELAY_S)
    with ModelServer([reply.keyed("talk").always()]) as server:
        await child.ready(base_url=server.base_url)


def _warm(served: Served) -> None:
    """Everything that is loaded once is loaded before memory is looked at."""
    connection = served.connect()
    for n in range(WARMUP):
        _message(connection, served, "agent:main:quiet", f"warm {n}")
        _first_token(connection, served, "agent:main:quiet", f"warm, streaming {n}")
    connection.close()


async def crowd(child: Child, *, url: str, token: str) -> None:
    """Idle streams on a quiet session; then, at the barrier, turns that run and are watched."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"Host: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"

    async def stream(path: str) -> asyncio.Task[None]:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\n{head}Accept: text/event-stream\r\n\r\n".encode())
        await reader.readuntil(b"event: ")
        return asyncio.create_task(_drink(reader, writer))

    async def talk(n: int) -> asyncio.Task[None]:
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({"text": f"talk {n}"})
        writer.write(
            f"POST /v1/sessions/agent:main:talk:{n}/messages HTTP/1.1\r\n{head}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        answer = await reader.read()
        writer.close()
        turn_id = json.loads(answer.partition(b"\r\n\r\n")[2])["turn_id"]
        return await stream(f"/v1/turns/{turn_id}/events")

    quiet_session = "/v1/sessions/agent:main:quiet/entries"
    filling = [await stream(quiet_session) for _ in range(IDLE_STREAMS)]
    child.say("filled")
    await child.order("more")
    idle = [await stream(quiet_session) for _ in range(IDLE_STREAMS)]
    await child.ready()
    for task in filling:
        task.cancel()
    await asyncio.gather(*filling, return_exceptions=True)
    talking = await asyncio.gather(*(talk(n) for n in range(RUNNING_TURNS)))
    child.say("running")
    await asyncio.wait([*idle, *talking])


async def _drink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(65_536):
            pass
    finally:
        writer.close()


def _health(served: Served, rounds: int) -> list[int]:
    connection, found = served.connect(), list[int]()
    for _ in range(rounds):
        start_ns = perf_counter_ns()
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read()
        found.append(perf_counter_ns() - start_ns)
        assert answer.status == 200, answer.status
    connection.close()
    return found


# ------------------------------------------------------------------------------ the server


@dataclass(frozen=True, slots=True)
class Served:
    """A serving process of ours."""

    url: str
    token: str
    pid: int

    def connect(self) -> http.client.HTTPConnection:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return http.client.HTTPConnection(host, int(port), timeout=120)

    def post(
        self,
        connection: http.client.HTTPConnection,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        told = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), {**told, **(headers or {})})
        answer = connection.getresponse()
        assert answer.status < 300, (answer.status, answer.read())
        return answer

    def history(
        self, connection: http.client.HTTPConnection, key: str
    ) -> tuple[Mapping[str, Any], ...]:
        """The session's messages so far."""
        told = {"Authorization": f"Bearer {self.token}"}
        connection.request("GET", f"/v1/sessions/{key}/entries", headers=told)
        found = json.loads(connection.getresponse().read())
        return tuple(each["entry"]["message"] for each in found["entries"])

    def rss_kb(self) -> int:
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            [line] = [each for each in status if each.startswith("VmRSS")]
        return int(line.split()[1])


@contextmanager
def _served(
    state: str, base_url: str, env: Mapping[str, str] | None = None
) -> Iterator[Served]:
    model = {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "bench"}
    process = subprocess.Popen(  # noqa: S603  This very interpreter, our own module.
        [sys.executable, "-m", "holdfast", "serve", "--json", "--store", state, "--port", "0",
         "--model", "openai-chat:bench"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **model, **(env or {})},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        with open(said["token_file"], encoding="ascii") as token:
            yield Served(said["serving"], token.read().strip(), process.pid)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
