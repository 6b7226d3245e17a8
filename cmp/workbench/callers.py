"""On whose behalf something is done now: the owner's, who may do everything, or a visitor's, who may look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

BY_CALLER = "Authorization, Cookie, X-CMP-Token"  # the headers by which an owner is known, to whom an address may say more than to others


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `address` tells those apart who ask over the network, and is "" for this process itself.

    `by_id`: what they name is an id and never a path; of visitors this holds in any case. `page` tells pages in browsers apart, each of
    which alone knows its own; "" for what no page asks.
    """

    owner: bool = True
    address: str = ""
    by_id: bool = False
    page: str = field(default="", repr=False)

    @property
    def only_ids(self) -> bool:
        return self.by_id or not self.owner


_OWNER = Caller()
_CALLER: ContextVar[Caller] = ContextVar("caller", default=_OWNER)


def caller() -> Caller:
    """Who asks for what this thread or task does now. What a process does by itself, its jobs too, it does for its owner."""
    return _CALLER.get()


def act_for_owner() -> None:
    """Has all that follows in this context be done for the process itself; which page has asked for it stays known."""
    _CALLER.set(Caller(page=caller().page))


@contextmanager
def acting_for(who: Caller) -> Iterator[None]:
    """Does what follows on behalf of somebody."""
    before = _CALLER.set(who)
    try:
        yield
    finally:
        _CALLER.reset(before)
