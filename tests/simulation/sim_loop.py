"""A deterministic asyncio loop: virtual time, and a seeded choice among the processes that have something to do.

Every callback belongs to a *node*, a process of the simulated world, known by a context variable that tasks and
callbacks inherit. A node's own callbacks run in the order in which they were scheduled, as asyncio and uvloop promise;
which node runs next is up to the dice. A node can be killed (nothing of it ever runs again, no `finally` either) or
paused (it wakes up later and finds that time has passed). Time moves only when nobody has anything to do.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

BUSY = 2000  # steps at one instant, after which time passes all the same
NODE: contextvars.ContextVar[Node] = contextvars.ContextVar("node")


class Stuck(Exception):
    """Nothing will ever happen any more, or too much has."""


class Node:
    """A process of the simulated world. `on_kill` is called when it is killed: its files and sockets close."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.queue: deque[asyncio.Handle] = deque()
        self.on_kill: list[Callable[[], None]] = []
        self.context = contextvars.copy_context()
        self.context.run(NODE.set, self)

    def __repr__(self) -> str:
        return f"<{self.name}>"


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number: sets of tasks (anyio's, asyncio's) then have the same order in every run."""

    next_number = 0

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._number = _Task.next_number
        super().__init__(*arguments, **more)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """The loop; `dice` is its own random generator, `failures` what escaped from callbacks and tasks."""

    def __init__(self, dice: random.Random, max_steps: int) -> None:
        super().__init__()
        self.dice, self.max_steps = dice, max_steps
        self.steps = 0
        self.failures: list[str] = []
        self.nodes: list[Node] = []
        self._now = 0.0
        self._heap: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = self._made = self._still = 0
        self._runnable: list[Node] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._prune = 1000
        self._over = False
        self.world = self.node("world")
        self.set_task_factory(self._make_task)

    def node(self, name: str) -> Node:
        """A new process."""
        made = Node(name)
        self.nodes.append(made)
        return made

    # -- asyncio's side -----------------------------------------------------------------------------------------------
    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._post(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, handle))
        return handle

    def run_in_executor(self, executor: Any, function: Any, *args: Any) -> Any:
        """Threads are a short wait and then the work at once."""
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(function(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_later(self.dice.uniform(0.0, 0.005), work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._over:
            error = context.get("exception")
            self.failures.append(f"{context.get('message')}: {error!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _make_task(self, loop: Any, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        self._made += 1
        _Task.next_number = self._made
        task: asyncio.Task[Any] = _Task(coroutine, loop=loop, **more)
        self._tasks.add(task)  # a killed node's tasks must stay: their end would run their `finally`
        if len(self._tasks) > self._prune:
            self._tasks = {task for task in self._tasks if not task.done()}
            self._prune = 2 * len(self._tasks) + 1000
        return task

    # -- the scheduler ------------------------------------------------------------------------------------------------
    def _post(self, handle: asyncio.Handle) -> None:
        node = handle._context.get(NODE, self.world)
        if not node.alive:
            return
        if not node.queue and not node.paused:
            self._runnable.append(node)
        node.queue.append(handle)

    def _run_once(self) -> None:
        heap, runnable = self._heap, self._runnable
        while not runnable:
            if not heap:
                raise Stuck("nothing will ever happen any more")
            when, _, handle = heapq.heappop(heap)
            if not handle._cancelled:
                self._still = 0
                self._now = max(self._now, when)
                self._post(handle)
        now = self._now
        while heap and heap[0][0] <= now:
            handle = heapq.heappop(heap)[2]
            if not handle._cancelled:
                self._post(handle)
        index = self.dice.randrange(len(runnable)) if len(runnable) > 1 else 0
        node = runnable[index]
        handle = node.queue.popleft()
        if not node.queue:
            runnable[index] = runnable[-1]
            runnable.pop()
        if handle._cancelled:
            return
        self.steps += 1
        self._still += 1
        if self._still > BUSY:  # who spins takes time, too
            self._still = 0
            self._now += 0.0005
        if self.steps > self.max_steps and not self._over:
            raise Stuck(f"{self.max_steps} steps were not enough")
        handle._run()

    # -- nodes --------------------------------------------------------------------------------------------------------
    def spawn(self, node: Node, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Run a coroutine as this node."""
        return node.context.copy().run(self.create_task, work, name=name or node.name)

    def call_in(self, node: Node, delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        """Call something as this node, after a while."""
        return self.call_at(self._now + delay, callback, *args, context=node.context)

    def kill(self, node: Node) -> None:
        """End a node at once: nothing of it runs any more."""
        if not node.alive:
            return
        node.alive = False
        node.queue.clear()
        if node in self._runnable:
            self._runnable.remove(node)
        for hook in node.on_kill:
            hook()

    def pause(self, node: Node) -> None:
        """Let a node sleep, as SIGSTOP does."""
        node.paused = True
        if node in self._runnable:
            self._runnable.remove(node)

    def go_on(self, node: Node) -> None:
        """Wake a paused node up."""
        if node.paused:
            node.paused = False
            if node.alive and node.queue:
                self._runnable.append(node)

    def dispose(self) -> None:
        """End every task, of killed nodes too, when nothing of the world counts any more."""
        self._over = True
        for node in self.nodes:
            node.on_kill.clear()
            node.alive = True
            self.go_on(node)
        for task in self._tasks:
            if not task.done():
                task.cancel()
        left = [task for task in self._tasks if not task.done()]

        async def rest() -> None:
            for _ in range(50):
                waiting = [task for task in left if not task.done()]
                if not waiting:
                    return
                for task in waiting:
                    task.cancel()
                await asyncio.wait(waiting, timeout=0.002)

        self.run_until_complete(rest())
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()
            else:
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # nothing is left to tell it to
        self._heap.clear()
        self.close()
