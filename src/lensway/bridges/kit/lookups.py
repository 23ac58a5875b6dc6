"""Looking names up with the system's resolver, so that a zone that never answers delays nothing but its own names.

`getaddrinfo` cannot be interrupted, and the event loops run it in a handful of shared threads: a few names of a
dead zone take them all, and a process waits for them at its exit. Here each look-up has a daemon thread of its own, which keeps
no process alive. Askers of one name share its look-up. Names known not to answer get few threads, unknown names more, and
names that answered in time last have a reserve that the others cannot take.

The system's resolver stays in use, because it honours ``nsswitch.conf``, ``hosts``, search domains and the proxies of container
platforms; libraries that speak DNS themselves do not. Found addresses are not kept: the next asker looks again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ipaddress
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from lensway import limits

LookUp = Callable[..., list[tuple[Any, ...]]]
_Key = tuple[str, int]
_MOST: Final = {True: limits.LOOKUPS_MAX, None: limits.LOOKUPS_UNKNOWN_MAX, False: limits.LOOKUPS_LATE_MAX}
_Answer = concurrent.futures.Future[list[str]]


class _Search:
    """One name that a connection waits for, or whose last look-up has not come back."""

    __slots__ = ("began", "waiting")

    def __init__(self) -> None:
        self.waiting: set[_Answer] = set()
        self.began: list[float] = []
        """When each of its look-ups under way began."""


class Lookups:
    """The look-ups of one process. May be used from several event loops."""

    def __init__(self, look_up: LookUp = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._lock = threading.Lock()
        self._searches: dict[_Key, _Search] = {}
        self._line: dict[_Key, None] = {}
        """Names that wait for a thread, in order."""
        self._threads = 0
        self._is_prompt: OrderedDict[_Key, bool] = OrderedDict()
        """Whether a name's last look-up came back in time; unknown names are not in it."""
        self._failed: OrderedDict[_Key, tuple[float, Exception]] = OrderedDict()

    async def addresses(self, host: str, port: int) -> list[str]:
        """Every address that the name stands for now, in the resolver's order.

        Raises:
            TimeoutError: no answer within RESOLVE_SECONDS.
            OSError, UnicodeError, ValueError: as `socket.getaddrinfo` does.
        """
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        key = (host.lower().rstrip("."), port) if host.isascii() else (host, port)
        answer = self._ask(key)
        try:
            async with asyncio.timeout(limits.RESOLVE_SECONDS):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            self._is_late(key)
            raise
        finally:
            self._leave(key, answer)

    @property
    def thread_count(self) -> int:
        """Look-ups that have not come back."""
        return self._threads

    def _ask(self, key: _Key) -> _Answer:
        answer: _Answer = concurrent.futures.Future()
        now = time.monotonic()
        with self._lock:
            failed = self._failed.get(key)
            if failed is not None and now - failed[0] < limits.LOOKUP_FAILED_SECONDS:
                answer.set_exception(failed[1])
                return answer
            search = self._searches.setdefault(key, _Search())
            search.waiting.add(answer)
            if self._wants_thread(search, now) and not self._started(key, search, now):
                self._line[key] = None
        return answer

    def _wants_thread(self, search: _Search, now: float) -> bool:
        if not search.began:
            return True
        # The resolver repeats a lost question after seconds only, so a second look-up may well be answered first.
        return len(search.began) < limits.LOOKUPS_PER_NAME_MAX and now - search.began[-1] >= limits.RESOLVE_SECONDS

    def _started(self, key: _Key, search: _Search, now: float) -> bool:
        """Start a look-up if there is room; False when there is none."""
        if self._threads >= _MOST[self._is_prompt.get(key)]:
            return False
        thread = threading.Thread(target=self._run, args=(key, now), name="look up a name", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The system gives no thread now; a later asker tries again.
            self._settle(key, search, [], OSError("no thread for a look-up"), now)
            return True
        search.began.append(now)
        self._threads += 1
        return True

    def _is_late(self, key: _Key) -> None:
        with self._lock:
            search = self._searches.get(key)
            if search is not None and search.began:
                _remember(self._is_prompt, key, False)

    def _leave(self, key: _Key, answer: _Answer) -> None:
        with self._lock:
            search = self._searches.get(key)
            if search is not None:
                search.waiting.discard(answer)
                self._forget_unused(key, search)

    def _run(self, key: _Key, began: float) -> None:
        found: list[str] = []
        failure: Exception | None = None
        try:
            entries = self._look_up(key[0], key[1], type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: it is raised where the answer is awaited
            failure = error
        now = time.monotonic()
        with self._lock:
            self._threads -= 1
            search = self._searches[key]
            search.began.remove(began)
            if now - began < limits.RESOLVE_SECONDS:
                _remember(self._is_prompt, key, True)
            self._settle(key, search, found, failure, now)
            self._serve_line(now)

    def _settle(self, key: _Key, search: _Search, found: list[str], failure: Exception | None, now: float) -> None:
        if failure is not None:
            _remember(self._failed, key, (now, failure))
        else:
            self._failed.pop(key, None)
        waiting, search.waiting = search.waiting, set()
        for answer in waiting:
            if not answer.set_running_or_notify_cancel():
                continue
            if failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(list(found))
        self._forget_unused(key, search)

    def _serve_line(self, now: float) -> None:
        for key in list(self._line):
            search = self._searches[key]
            if not self._wants_thread(search, now) or self._started(key, search, now):
                self._line.pop(key, None)

    def _forget_unused(self, key: _Key, search: _Search) -> None:
        if not search.waiting and not search.began:
            self._searches.pop(key, None)
            self._line.pop(key, None)


def _remember(table: OrderedDict[_Key, Any], key: _Key, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > limits.LOOKUPS_REMEMBERED_MAX:
        table.popitem(last=False)


PROCESS: Final = Lookups()
"""The look-ups of this process: it has one resolver, so its bounds hold for everything in it."""
