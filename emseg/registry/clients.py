"""Many clients of one server: whose turn it is, what each may hold, and who took too long."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from uvicorn.protocols.http.h11_impl import H11Protocol

Pause = Callable[[], None]
_Result = TypeVar("_Result")
_MOST_OF_CLIENT = 8
"""Requests of one address at once."""
_HEADER_SECONDS = 20.0
"""How long a connection may be open without a whole request."""
_LOOK_SECONDS = 0.5
"""How often one looks whether a client that waits is still there."""
_MOST_BEGUN = 8
"""Pieces of work that are begun and not ended; each holds its sections in memory."""


class BusyError(Exception):
    """The server holds as much as it can; `status` is that of HTTP."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class GivenUpError(Exception):
    """Nobody waits for the result any more."""


class Turns:
    """One piece of work at a time, from each address in turn; a long one gives way to other addresses.

    The network uses every core, so that one section at a time is fastest for everyone.

    Args:
        most_bytes: of all requests together that are held at once.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._of_client: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._is_busy = False
        self._begun = 0
        self._pool = ThreadPoolExecutor(max_workers=_MOST_BEGUN + 1)

    @property
    def requests(self) -> int:
        """That are held at the moment."""
        return self._of_client.total()

    @contextmanager
    def admitted(self, client: str, length: int) -> Iterator[None]:
        """Hold a request of `length` bytes while it is answered.

        Raises:
            BusyError: its address has as many as it may have, or all of them fill what may be held.
        """
        if self._of_client[client] >= _MOST_OF_CLIENT:
            raise BusyError(429, f"this address has {_MOST_OF_CLIENT} requests here already; wait for an answer")
        if self._held_bytes and self._held_bytes + length > self._most_bytes:
            raise BusyError(503, "the server holds as many bytes of requests as it may; try again later")
        self._of_client[client] += 1
        self._held_bytes += length
        try:
            yield
        finally:
            self._held_bytes -= length
            self._of_client[client] -= 1
            self._of_client += Counter()

    async def run(
        self,
        client: str,
        work: Callable[[Pause], _Result],
        timeout: float,
        is_gone: Callable[[], Awaitable[bool]],
    ) -> _Result:
        """What `work` gives, in a thread, when it is this address's turn.

        Args:
            client: the address.
            work: is handed a function to call now and then: it lets others have their turn, and raises GivenUpError
                when nobody waits for the result any more.
            timeout: seconds, waiting included.
            is_gone: whether the client has hung up.

        Raises:
            TimeoutError: it took longer.
            GivenUpError: the client has hung up.
        """
        given_up = threading.Event()
        loop = asyncio.get_running_loop()

        def pause() -> None:
            if self._waiting and not given_up.is_set():
                asyncio.run_coroutine_threadsafe(self._give_way(client), loop).result()
            if given_up.is_set():
                raise GivenUpError

        async def in_turn() -> _Result:
            async with self._turn(client):
                if given_up.is_set():
                    raise GivenUpError
                return await loop.run_in_executor(self._pool, work, pause)

        task = loop.create_task(in_turn())
        # A thread cannot be cancelled: the turn is handed on when it has seen that it is given up.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        until = loop.time() + timeout
        try:
            while not task.done():
                left = until - loop.time()
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait({task}, timeout=min(left, _LOOK_SECONDS))
                if not task.done() and await is_gone():
                    raise GivenUpError
        finally:
            given_up.set()
        return task.result()

    @asynccontextmanager
    async def _turn(self, client: str) -> AsyncIterator[None]:
        if self._is_busy:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(client, deque()).append(waiting)
            await waiting
        self._is_busy = True
        self._begun += 1
        try:
            yield
        finally:
            self._begun -= 1
            self._hand_on()

    async def _give_way(self, client: str) -> None:
        if self._begun >= _MOST_BEGUN or all(other == client for other in self._waiting):
            return
        again = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).appendleft(again)
        self._waiting.move_to_end(client)
        self._hand_on()
        await again

    def _hand_on(self) -> None:
        self._is_busy = bool(self._waiting)
        if self._waiting:
            # The address that was served comes last again.
            client, queue = self._waiting.popitem(last=False)
            queue.popleft().set_result(None)
            if queue:
                self._waiting[client] = queue


class ImpatientProtocol(H11Protocol):
    """HTTP that closes connections on which no whole request arrives."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if not self._is_idle:
            self._expect_no_more()
        elif self._deadline is None:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self._expect_no_more()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(_HEADER_SECONDS, self._close_if_idle)

    def _expect_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close_if_idle(self) -> None:
        self._deadline = None
        if self._is_idle and not self.transport.is_closing():
            self.transport.close()


def client_of(request: Any) -> str:
    """The address that a request comes from."""
    return request.client.host if request.client else "unknown"
