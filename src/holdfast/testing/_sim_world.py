"""
The simulated world: time, processes, and the one place where somebody is chosen to run.

Everything happens in one real thread.  A simulated thread is a greenlet; each of its system
calls comes by `World.step`, where the policy may prefer another one and the storm may
strike.  Time is a number that the calls push on, and that jumps when everybody sleeps.
Nothing here asks the real world anything, so a seed is a run, byte for byte.
"""

from __future__ import annotations

import traceback
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from holdfast.testing._sim_install import replaced, replaced_table
from holdfast.testing._sim_kernel import Kernel
from holdfast.testing._sim_oracle import Oracle
from holdfast.testing._sim_process import (
    OURS,
    OWN,
    Killed,
    Process,
    Thread,
    Threading,
    installed_globals,
)
from holdfast.testing._sim_stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

    from holdfast.testing._sim_schedule import Policy
    from holdfast.testing._sim_storm import Aim, Storm

__all__ = ["World"]

CALL_NS: Final = 8_000  #: A system call, in virtual time.
YIELD_NS: Final = 2_000
STEPS_MAX: Final = 400_000  #: Beyond this somebody runs in a circle.


def _greenlet() -> Any:
    try:
        return import_module("greenlet")
    except ImportError as error:
        raise ImportError(
            "the simulator needs greenlet: pip install 'holdfast[sim]'"
        ) from error


class World(Stage):
    """One run.  Make it, `spawn` processes, `run`; then look at `broken`."""

    def __init__(
        self, seed: int, policy: Policy, *, storm: Storm | None = None, traced: bool = False
    ) -> None:
        super().__init__(seed, storm=storm, traced=traced)
        self.policy = policy
        self.call_ns, self.steps_max = CALL_NS, STEPS_MAX
        self.strike_at = -1 if storm is None else storm.first()
        self.aims: Mapping[str, Aim] = {} if storm is None else storm.aims
        self.kernel = Kernel(self)
        self.oracle = Oracle(self)
        self.threading: Threading = Threading(self)
        self.modules: dict[str, ModuleType] = installed_globals()
        self.spaces = [(vars(self.modules[module]), name) for module, name in OWN]
        self.daemons: set[int] = set()
        self.process = Process(self, 0, "setup", 1, "setup")
        self.wanted: Thread | None = None
        self._waiting: dict[int, list[Thread]] = {}
        self._pids = count(100)
        self._greenlet = _greenlet()
        self._hub: Any = None

    # ------------------------------------------------------------------ building

    def spawn(
        self,
        name: str,
        body: Callable[[], None],
        *,
        pid: int | None = None,
        command: str = OURS,
        after_s: float = 0.0,
    ) -> Process:
        """A process that runs *body*, from *after_s* seconds of virtual time on."""
        number = next(self._numbers)
        process = Process(self, number, name, pid or next(self._pids), command)
        self.processes.append(process)
        thread = self.start_thread(process, body)
        if after_s > 0:
            thread.state = "asleep"
            self.at(after_s, lambda: self._wake(thread))
            self.refresh()
        return process

    def start_thread(self, process: Process, body: Callable[[], None]) -> Thread:
        thread = Thread(process, len(self.threads) + 1, body)
        thread.priority = self.policy.priority()
        self.threads.append(thread)
        process.threads.append(thread)
        self.refresh()
        return thread

    def _body(self, thread: Thread) -> None:
        try:
            thread.body()
        except Killed:
            pass
        except BaseException:  # noqa: BLE001
            if not thread.process.dead:
                self.broken = self.broken or (
                    f"uncaught in {thread.process.name}:\n{traceback.format_exc()}"
                )
        thread.state = "done"
        self.unblock(thread)  # Who joins it.
        process = thread.process
        if not process.dead and all(
            one.state == "done" or one.number in self.daemons for one in process.threads
        ):
            with suppress(Killed):
                if self.broken is None:
                    self.oracle.ended(process)
            self.end(process)
        self.refresh()

    # ------------------------------------------------------------------ running

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The simulated table, threads and names in place of the real ones."""
        outside = Process(self, 0, "outside", 1, "outside")
        outside.exit()
        with replaced(self):
            self.process.enter()
            try:
                yield
            finally:
                self._unwind()
                self.process.exit()
                outside.enter()

    @contextmanager
    def disk_only(self) -> Iterator[None]:
        """The simulated disk in place of the real one; clocks and threads stay real."""
        with replaced_table(self):
            yield

    def run(self) -> None:
        """Until every process is over, or something broke.  Within `installed`."""
        self._hub = self._greenlet.getcurrent()
        while self.broken is None:
            while self._reaping:
                self._reap(self._reaping.pop())
            if not any(self._unfinished()):
                return
            if self.wanted is not None and self.wanted in self.ready:
                thread = self.wanted
            elif self.ready:
                thread = self.policy.next(self.ready)
            elif self.events:
                self.now_ns = max(self.now_ns, self.events[0][0])
                self.fire()
                continue
            else:
                stuck = [thread.process.name for thread in self._unfinished()]
                self.broken = f"nobody can go on: {', '.join(stuck)}"
                return
            self.wanted = None
            self._switch(thread)

    def _unfinished(self) -> Iterator[Thread]:
        for thread in self.threads:
            if thread.state != "done" and thread.number not in self.daemons:
                yield thread

    def _switch(self, thread: Thread) -> None:
        if thread.process is not self.process:
            self.process.exit()
            self.process = thread.process
            self.process.enter()
        self.thread = thread
        if thread.greenlet is None:  # Its parent, where it comes out, is the hub.
            thread.greenlet = self._greenlet.greenlet(lambda: self._body(thread), self._hub)
        self._inside = True
        thread.enter()
        thread.greenlet.switch()
        thread.exit()
        self._inside, self.thread = False, None

    def _reap(self, thread: Thread) -> None:
        """Unwind a dead process's stack; nothing it still does has an effect."""
        if thread.state == "done" and not thread.process.leftovers:
            return
        self.process.exit()
        self.process = thread.process
        self.process.enter()
        self.thread = thread
        thread.enter()
        if thread.greenlet:
            thread.greenlet.throw(Killed)
        thread.exit()
        thread.state = "done"
        if all(one.state == "done" for one in thread.process.threads):
            for left in thread.process.leftovers:
                left()
            thread.process.leftovers.clear()
        self.thread = None
        self.refresh()

    def _unwind(self) -> None:
        for process in self.processes:
            process.dead = True
        for thread in self.threads:
            self._reap(thread)

    # ------------------------------------------------------------------ a call

    def step(self, name: str, args: tuple[Any, ...]) -> OSError | None:
        """
        Before a system call.  Returns the error to raise after it took effect, if any.

        Raises:
            OSError: the storm struck before it took effect.
            Killed: this process is no more.
        """
        thread = self.thread
        if thread is None:
            return None
        if thread.process.dead:
            if name == "close":  # Perhaps by the garbage collector, which takes no exceptions.
                return None
            raise Killed
        self.steps += 1
        self.now_ns += self.call_ns
        if self.steps > self.steps_max:
            self.fail(f"more than {self.steps_max} steps: somebody runs in a circle")
        if self.events and self.events[0][0] <= self.now_ns:
            self.fire()
        if self.storm is not None and (
            self.steps == self.strike_at or thread.doom is not None or name in self.aims
        ):
            self._storms(self.storm, thread, name)
        chosen = self.policy.at_point(self.ready, thread, name, args)
        if chosen is not None or thread.process.frozen or thread.process.dead:
            self.wanted = chosen
            self._hub.switch()
            if thread.process.dead:
                raise Killed
        if thread.fault is None or self.storm is None:
            return None
        return self.storm.fault(thread, name)

    def _storms(self, storm: Storm, thread: Thread, name: str) -> None:
        if self.steps == self.strike_at:
            self.strike_at = storm.strike(self)
        if thread.doom is not None:
            storm.doomed(self, thread)
        elif name in self.aims and self.strike_at >= 0:  # It is not over.
            storm.aimed(self, thread, name)

    def after_write(self) -> None:
        if self.storm is not None and self.thread is not None:
            self.storm.wrote(self, self.thread)

    def sleep(self, seconds: float) -> None:
        thread = self.thread
        if thread is None:
            self.now_ns += round(seconds * 1e9)
            return
        thread.state = "asleep"
        after_ns = round(max(seconds, 0) * 1e9 / thread.process.rate)
        self._push(self.now_ns + max(after_ns, YIELD_NS), lambda: self._wake(thread))
        self._pause(thread)

    def block(self, on: object, timeout_s: float) -> bool:
        """Until `unblock(on)`; False: the time was over first."""
        thread = self.thread
        assert thread is not None, "nobody may wait while the world is being built"
        if thread.process.dead:
            raise Killed
        waiting = self._waiting.setdefault(id(on), [])
        waiting.append(thread)
        thread.state = "blocked"
        timed_out = []
        if timeout_s >= 0:

            def give_up() -> None:
                if thread in waiting:
                    timed_out.append(True)
                    waiting.remove(thread)
                    self._wake(thread)

            self._push(self.now_ns + max(round(timeout_s * 1e9), YIELD_NS), give_up)
        self._pause(thread)
        return not timed_out

    def unblock(self, on: object, *, most: int | None = None) -> None:
        waiting = self._waiting.get(id(on), [])
        for thread in waiting[:most]:
            waiting.remove(thread)
            self._wake(thread)
        if not waiting:
            self._waiting.pop(id(on), None)

    def _pause(self, thread: Thread) -> None:
        self.refresh()
        self._hub.switch()
        if thread.process.dead:
            raise Killed

    def _wake(self, thread: Thread) -> None:
        if thread.state in {"asleep", "blocked"}:
            thread.state = "ready"
            self.refresh()
