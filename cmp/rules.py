"""Whom a server lets in, by which names it goes, and how often anybody may ask."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from cmp.core.limits import Rates
from cmp.core.server_names import entry_name, host_name, is_address, is_entry, is_own, read_origin
from cmp.errors import TooOften

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_UPLOADS = (20, 3.0)  # at once, and after them one in so many seconds
_WRONG = (20, 5.0)
_VISITS = (300, 1 / 30)  # see docs/serving.md: three pages that watch a grid being drawn ask 20 times a second
_REMEMBERED = 1000  # wrong tokens


@dataclass(frozen=True, slots=True)
class Rules:
    """Whom a server lets in. Without a `token` everybody who reaches it is its owner, unless `strangers` come.

    `open_reading`: looking needs no token. `hosts` are the names that it goes by; `any_address` takes it by any number too, which no
    foreign page can make its own name. `origins`: those of them, with a port where it is not the usual one, whose pages are its own even
    where a proxy has put another name into the Host header. `uploads`: whether files may be sent. `forwarded`: all comes through a proxy,
    which says who asks; of one that some come through, uvicorn is told by FORWARDED_ALLOW_IPS. `framed`: other sites may show it as a
    part of theirs.
    """

    token: str | None = None
    open_reading: bool = False
    strangers: bool = False
    hosts: frozenset[str] = frozenset(LOOPBACK)
    origins: frozenset[str] = frozenset()
    any_address: bool = False
    uploads: bool = True
    forwarded: bool = False
    framed: bool = False
    rates: Rates = field(default_factory=lambda: Rates(*_UPLOADS), compare=False)
    visits: Rates = field(default_factory=lambda: Rates(*_VISITS), compare=False)
    guesses: Guesses = field(default_factory=lambda: Guesses(), compare=False)

    def knows(self, host: str) -> bool:
        """Whether this server goes by the name in a Host header, whatever the port."""
        name = host_name(host)
        return self.is_named(host) or (self.any_address and is_address(name))

    def is_named(self, host: str) -> bool:
        """The same, numbers that it happens to be reached by left out."""
        name, own = host_name(host), {entry_name(entry) for entry in self.hosts}
        return name in own or (bool(name) and any(name.endswith(entry[1:]) for entry in own if entry.startswith("*.")))

    def takes(self, origin: str, host: str, scheme: str) -> bool:
        """Whether a page of that origin may send requests here. `scheme`: https where it is known that they came so."""
        found = read_origin(origin)
        if found is None or (scheme == "https" and found.scheme != scheme):
            return False
        return is_own(found, host) or is_entry(found, self.origins - set(LOOPBACK))


class Guesses:
    """Tokens that were shown, and how many of them were wrong. Safe to use from several threads.

    A wrong one that comes again teaches nobody anything: a page with the cookie of an earlier server counts once, not at each request.
    """

    def __init__(self) -> None:
        self._rates = Rates(*_WRONG)
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, given: Iterable[str], token: str, client: str) -> bool:
        """Whether one of them is the token. Raises TooOften, before it looks at any, where a client has shown too many wrong ones."""
        shown = {hashlib.sha256(one.encode("utf-8", "surrogatepass")).digest(): one for one in given if one}
        new = [(digest, one) for digest, one in shown.items() if digest not in self._wrong]
        if new and (wait := self._rates.wait(client, time.monotonic())):
            raise TooOften("too many wrong tokens were shown", f"Try again in {wait:.0f} s.", wait)
        for digest, one in new:
            if is_same(one, token):
                return True
            self._rates.take(client, time.monotonic())
            with self._lock:
                self._wrong[digest] = None
                while len(self._wrong) > _REMEMBERED:
                    self._wrong.popitem(last=False)
        return False


def is_same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())
