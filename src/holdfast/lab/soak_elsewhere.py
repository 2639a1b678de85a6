"""
The world outside a soak's runners, as bad as they come: a model and a receiver of webhooks.

Both do what the messages say: see `soak_plan.py`.  When the storm is over ("calm") they are
good to everybody.
"""

from __future__ import annotations

import random
import re
import zlib
from typing import TYPE_CHECKING, Any, Final

from holdfast.testing.model_server import ModelServer, Step
from holdfast.testing.receiver import Answer, Receiver, chaos

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.lab.child import Child
    from holdfast.testing.model_server import Received

__all__ = ["Model", "elsewhere"]

_MARK: Final = re.compile(r"\b([mc][\w.-]*): ([^\n]*)")
_CHILDREN: Final = ("ok", "ok", "slow ok", "never ok", "safe eof ok", "rate ok")
TOKEN_DELAY_S: Final = 0.01
SLOW_S: Final = 0.15  #: Between two tokens.
KEPT: Final = 50  #: Requests that are remembered; each has a whole history.
LONG: Final = ("It was a long story. ",) * 30
CUT_AFTER: Final = 2
_QUICK: Final = "0"  #: `Retry-After`.

_WOES: Final = {
    "rate": Step.fail("rate_limit", retry_after=_QUICK),
    "down": Step.fail("unavailable", retry_after=_QUICK),
    "error": Step.fail("server_error", retry_after=_QUICK),
    "eof": Step.cut("eof", after=CUT_AFTER),
    "drop": Step.cut("drop", after=CUT_AFTER),
    "garbage": Step.cut("garbage", after=CUT_AFTER),
    "hang": Step.cut("hang", after=CUT_AFTER),
    "slow": Step(delay_s=SLOW_S),
}


class Model(ModelServer):
    """Answers each text's requests by its words, one after the other; then with an echo."""

    def __init__(self) -> None:
        super().__init__(token_delay_s=TOKEN_DELAY_S)
        self._asked: dict[str, int] = {}
        self.calm = False

    def receive(self, received: Received) -> Step:
        super().receive(received)
        del self.requests[:-KEPT]
        found = _MARK.search(received.text)
        if found is None:
            return Step()
        mark, words = found[1], found[2].split()
        at = self._asked[mark] = self._asked.get(mark, -1) + 1
        word = words[at] if at < len(words) else "ok"
        if word in _WOES:
            return Step() if self.calm else _WOES[word]
        return _made(word, f"{mark}.{at}")


def _made(word: str, tag: str) -> Step:
    """*tag* names the call: no other request of the whole soak has it."""
    if word in {"safe", "never"}:
        return Step.call(word, {"tag": tag})
    if word == "pair":
        return Step.calls(("safe", {"tag": f"{tag}a"}), ("never", {"tag": f"{tag}b"}))
    if word.startswith("ask="):
        whom = word.removeprefix("ask=")
        room = "subagent" if whom.startswith("s") else "soak"
        words = _CHILDREN[zlib.crc32(tag.encode()) % len(_CHILDREN)]
        key = f"agent:main:{room}:{whom.removeprefix('s')}"
        return Step.call("ask", {"tag": tag, "key": key, "text": f"c{tag}: {words}"})
    if word == "silent":
        return Step.reply("NO_REPLY")
    return Step.reply(*LONG) if word == "long" else Step()


class Answers:
    """What a receiver answers: bad in all ways, until it is calm."""

    def __init__(self, seed: int) -> None:
        self.calm = False
        self._bad, self._dice = chaos(seed), random.Random(seed)  # noqa: S311

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        if self.calm:
            return Answer()
        if self._dice.random() < 0.02:
            return Answer(410)  # For good: one that nobody tries again.
        return next(self._bad)


async def elsewhere(child: Child, *, seed: int, secret: str) -> dict[str, Any]:
    """Serve both until the parent says stop; what the receiver has seen is the last word."""
    answers = Answers(seed)
    with Model() as model, Receiver(secret=secret, more=answers) as receiver:
        child.say("ready", base_url=model.base_url, hook_url=receiver.url)
        await child.order("calm")
        model.calm = answers.calm = True
        await child.order("stop")
        order: dict[str, list[str]] = {}
        for each in receiver.received:
            if each.processed:
                order.setdefault(each.told["to"], []).append(each.key)
        return {**receiver.summary(), "order": order}
