"""An agent for tests without HTTP: it says what it was told to, and keeps what was asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holdfast.agents import _transcript
from holdfast.types import Final, Made, Silent, Text, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt, Replay, Steered

__all__ = ["Act", "Call", "Fail", "Quiet", "Say", "ScriptedModel"]


@dataclass(frozen=True, slots=True)
class Say:
    """Reply with these tokens, and end."""

    tokens: tuple[str, ...]
    stop: str = "stop"


@dataclass(frozen=True, slots=True)
class Fail:
    """Say some tokens, then raise."""

    error: BaseException
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quiet:
    """End with a silence."""

    reason: str = "no_reply"
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """
    Call a tool through the hook, then go on with the next act.

    Skipped if `prompt.made` holds a result for its `call_id`: it has happened.  Not said again
    if `prompt.made` holds the call alone: the hook knows what became of it.
    """

    name: str
    run: Callable[[], Awaitable[Any]]
    arguments: dict[str, Any] = field(default_factory=dict)
    replay: Replay = "never"
    timeout_s: float = 120.0
    call_id: str = "call_1"


Act = Say | Fail | Quiet | Call


class ScriptedModel:
    """
    An `Agent` that plays a list of acts for each prompt.

        ScriptedModel([Fail(error)], [Call("add", add), Say(("five",))])

    A prompt takes the first list that was put down for its text with `on`, else the next of
    those given here, else the reply is ``reply to: <text>``.

    Args:
        turns: lists of acts, one a prompt, in the order of asking.
        gate: awaited before every token, with the prompt and the number of tokens out.
    """

    def __init__(
        self,
        *turns: list[Act],
        gate: Callable[[Prompt, int], Awaitable[None]] | None = None,
    ) -> None:
        self.prompts: list[Prompt] = []  #: As they came in.
        self.steered: list[Steered] = []  #: What the hook gave out, behind each tool call.
        self.abandoned = 0  #: How many answers were closed or cancelled before their end.
        self._turns = list(turns)
        self._keyed: list[tuple[str, list[Act]]] = []
        self._gate = gate

    def on(self, text: str, *acts: Act) -> None:
        """Play *acts* for the next prompt whose text contains *text*."""
        self._keyed.append((text, list(acts)))

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        """Play the acts for *prompt*; what a `Fail` holds is raised as it is."""
        self.prompts.append(prompt)
        done = {m.get("toolCallId") for m in prompt.made if m.get("role") == "toolResult"}
        said = {call_id for m in prompt.made for call_id in _called(m)}
        over = False
        try:
            for act in self._acts(prompt):
                if isinstance(act, Call):
                    if act.call_id in done:
                        continue
                    if act.call_id not in said:
                        yield Made(message=_asking(act))
                    result = await hook(_tool_call(act), act.run)
                    yield Made(message=_result(act, result))
                    self.steered += await hook.steered()
                    continue
                for position, token in enumerate(act.tokens):
                    if self._gate is not None:
                        await self._gate(prompt, position)
                    yield Text(delta=token)
                over = True
                match act:
                    case Say(tokens, stop):
                        message = _reply(prompt, tokens, stop)
                        yield Final(message=message, text="".join(tokens))
                    case Quiet(reason=reason):
                        yield Silent(reason=reason)
                    case Fail(error=error):
                        raise error
            over = True
        finally:
            self.abandoned += not over

    def _acts(self, prompt: Prompt) -> list[Act]:
        for position, (text, acts) in enumerate(self._keyed):
            if text in prompt.text:
                del self._keyed[position]
                return acts
        if self._turns:
            return self._turns.pop(0)
        return [Say(("reply", " to: ", prompt.text))]


def _tool_call(act: Call) -> ToolCall:
    return ToolCall(
        call_id=act.call_id,
        name=act.name,
        arguments=act.arguments,
        replay=act.replay,
        timeout_s=act.timeout_s,
    )


def _called(message: Mapping[str, Any]) -> Iterator[str]:
    """The ids of the calls in a message of the transcript."""
    content = message.get("content")
    for block in content if isinstance(content, list) else ():
        if block.get("type") == "toolCall":
            yield block["id"]


def _asking(act: Call) -> dict[str, Any]:
    block = _transcript.tool_call(act.call_id, act.name, act.arguments)
    return _assistant([block], words=0, asked=0, stop="toolUse")


def _result(act: Call, result: object) -> dict[str, Any]:
    return _transcript.tool_result(act.call_id, act.name, str(result), failed=False)


def _reply(prompt: Prompt, tokens: tuple[str, ...], stop: str) -> dict[str, Any]:
    block = {"type": "text", "text": "".join(tokens)}
    return _assistant([block], words=len(tokens), asked=len(prompt.text.split()), stop=stop)


def _assistant(
    content: list[dict[str, Any]], *, words: int, asked: int, stop: str
) -> dict[str, Any]:
    used = _transcript.usage(fresh=asked, output=words)
    return _transcript.assistant(
        content, provider="holdfast", model="scripted", used=used, stop=stop
    )
