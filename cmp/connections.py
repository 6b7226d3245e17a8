"""Bounds for connections, below all that looks at requests: how many there are, and how long one may take to say what it wants."""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from cmp.core.server_names import client_of

HEAD_WITHIN = 20.0  # seconds
MOST_OF_ONE = 200  # connections of one address; a browser opens six
_MOST_FILES = 65_536  # more would only make programs slow that look through all they might have open
_FOR_ITSELF = 512  # files that the server opens besides, at most half of all


def raise_open_files() -> int:
    """Lets this process open as many files as the system has it do; gives how many."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return _MOST_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _MOST_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):  # macOS says that there is no limit and has one
        return soft
    return wanted


def room_for(files: int) -> int:
    """How many connections there may be where so many files may be open."""
    return files - min(_FOR_ITSELF, files // 2)


class Connections:
    """Those that are open, and those of them that have not said yet what they want. Of one event loop, and not safe for threads.

    `most` of all and `most_of_one` address, but for those that are `spared`: a proxy asks for many. When there is no room for another,
    the one goes that has been silent longest.
    """

    def __init__(self, most: int, most_of_one: int = MOST_OF_ONE, spared: Callable[[str], bool] = lambda _: False) -> None:
        self.most, self.most_of_one, self._spared = most, most_of_one, spared
        self._clients: dict[Any, str] = {}
        self._counts: Counter[str] = Counter()
        self._silent: OrderedDict[Any, Any] = OrderedDict()  # with the timer that ends each

    def enter(self, line: Any, address: str) -> None:
        client = client_of(address)
        self._clients[line] = client
        self._counts[client] += 1
        if self._counts[client] > self.most_of_one and not self._spared(address):
            line.transport.abort()
            return
        if len(self._clients) > self.most:
            oldest = next(iter(self._silent), line)
            self.hear(oldest)
            oldest.transport.abort()
            if oldest is line:
                return
        self.wait(line)

    def wait(self, line: Any) -> None:
        """It is to say what it wants; a drop now and then gives it no more time."""
        if line in self._clients and line not in self._silent:
            self._silent[line] = line.loop.call_later(HEAD_WITHIN, line.transport.abort)

    def hear(self, line: Any) -> None:
        """It has said it."""
        if timer := self._silent.pop(line, None):
            timer.cancel()

    def leave(self, line: Any) -> None:
        self.hear(line)
        if (client := self._clients.pop(line, None)) is not None:
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]


def bounded(protocol: type[Any], open_ones: Connections) -> type[Any]:
    """The web server's own protocol, kept within bounds. Of it are used `cycle`, the request in hand, and `client`, `loop`, `transport`."""

    class Bounded(protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            open_ones.enter(self, self.client[0] if self.client else "")

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                open_ones.hear(self)
            elif before is None or before.response_complete:
                open_ones.wait(self)

        def connection_lost(self, fault: Exception | None) -> None:
            open_ones.leave(self)
            super().connection_lost(fault)

    return Bounded


def is_spared(address: str, proxies: str | Iterable[str]) -> bool:
    """Whether connections of this address are not counted: this machine's, from which `ssh` comes, and `proxies`, networks too."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True  # a socket of this machine's own
    told = [one.strip() for one in (proxies.split(",") if isinstance(proxies, str) else proxies)]
    return found.is_loopback or "*" in told or any(_within(found, one) for one in told)


def _within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
