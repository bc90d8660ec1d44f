"""The one thread that owns the engine: the event loop gives it requests and is given their tokens, step by step."""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from glassbox.generate.engine import Engine, Event, Request
from glassbox.serve.guard import Refusal

log = logging.getLogger("glassbox")
Result = TypeVar("Result")

BROKEN = "the model cannot decode any more; the server's log says why"


class Worker:
    """Decodes for all clients at once: a request joins between two steps and leaves between two steps."""

    def __init__(self, engine: Engine, slots: int, waiting: int):
        self._engine, self._slots, self._most = engine, slots, slots + waiting
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._routes: dict[int, tuple[Group, int]] = {}  # engine's id -> (group, index); touched by the thread alone
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._running = True
        self.healthy = True
        """False once the engine has failed: requests are refused with 503."""
        self.open = 0
        """Replies under way or waiting; touched by the event loop alone."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step it is in."""
        self._commands.put(self._halt)
        self._thread.join()

    def begin(self, requests: Sequence[Request]) -> "Group":
        """Queue requests that belong together; whoever gets the group must `close` it, whatever happens.

        Raises RequestError if one of them cannot be decoded, and Refusal: 503 after a failure of the engine, 400 if so
        many can never be served, 429 if not now.
        """
        for request in requests:
            self._engine.check(request)
        if not self.healthy:
            raise Refusal(503, BROKEN)
        if len(requests) > self._most:
            raise Refusal(400, f"{len(requests)} replies are asked for at once; at most {self._most} can be")
        if self.open + len(requests) > self._most:
            raise Refusal(429, "too many requests are waiting; try again soon", code="queue_full")
        group = Group(self, requests)
        self.open += len(requests)
        self._commands.put(lambda: self._admit(group))
        return group

    async def call(self, function: Callable[[], Result]) -> Result:
        """Run a function on the engine's thread, between two steps."""
        future: Future[Result] = Future()

        def command() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001 - it belongs to whoever asked, not to this thread
                future.set_exception(error)

        self._commands.put(command)
        return await asyncio.wrap_future(future)

    def end(self, group: "Group") -> None:
        """Abort what is unfinished of a group before the next step, and give its places back."""
        self.open -= len(group.requests)
        self._commands.put(lambda: self._drop(group, None))

    def abort(self, group: "Group", index: int) -> None:
        """Abort one request of a group before the next step."""
        self._commands.put(lambda: self._drop(group, index))

    def _run(self) -> None:
        while self._running:
            self._obey()
            if not self._routes:
                continue
            try:
                self._step()
            except Exception:  # the engine's state is unknown now: say so to everybody and take no more work
                log.exception("the engine failed")
                self.healthy = False
                self._give_up()

    def _obey(self) -> None:
        """Carry out what is queued; wait for a command while there is nothing to decode."""
        while self._running:
            try:
                command = self._commands.get(block=not self._routes)
            except queue.Empty:
                return
            command()

    def _step(self) -> None:
        for event in self._engine.step():
            group, index = self._routes[event.id]
            if event.finish_reason is not None:
                del self._routes[event.id]
            group.put(index, event)

    def _admit(self, group: "Group") -> None:
        if not self.healthy:
            group.fail()
            return
        for index, request in enumerate(group.requests):
            self._routes[self._engine.submit(request)] = (group, index)

    def _drop(self, group: "Group", index: int | None) -> None:
        for number in [n for n, (g, i) in self._routes.items() if g is group and index in (None, i)]:
            self._engine.abort(number)
            del self._routes[number]

    def _give_up(self) -> None:
        for group, _ in self._routes.values():
            group.fail()
        self._routes.clear()

    def _halt(self) -> None:
        self._running = False
        self._give_up()


class Group:
    """Requests of one client on their way to it."""

    def __init__(self, worker: Worker, requests: Sequence[Request]):
        self.requests = requests
        self._worker, self._closed = worker, False
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Event] | None] = asyncio.Queue()
        self._unfinished = set(range(len(requests)))

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """(which request, its token) until all are finished or aborted. Raises Refusal 500 if the engine fails."""
        while self._unfinished:
            came = await self._queue.get()
            if came is None:
                raise Refusal(500, BROKEN)
            index, event = came
            if index not in self._unfinished:
                continue  # drawn before its abort was carried out
            if event.finish_reason is not None:
                self._unfinished.discard(index)
            yield index, event

    def abort(self, index: int) -> None:
        """End one of the requests; no more of its tokens come."""
        self._unfinished.discard(index)
        self._worker.abort(self, index)

    def close(self) -> None:
        """End all that is unfinished; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._worker.end(self)

    def put(self, index: int, event: Event) -> None:
        """Called by the worker's thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (index, event))

    def fail(self) -> None:
        """Called by the worker's thread: no more tokens will come."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, None)
