"""What a page event names: one that the page has, and files that were uploaded before. Gradio would fetch an address given for one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cmp.errors import BadInput, NotFound, Refused


def check_event(body: bytes, knows: Callable[[str], bool], called: str | None = None, events: Mapping[int, str] | None = None) -> None:
    """Raises Refused for a file that lies elsewhere, BadInput for what is no JSON, NotFound for an event that the page does not have.

    `knows` tells this server by a Host header; `called` is the event's name where the address says it; without `events` any may be named.
    """
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as fault:
        raise BadInput("the event is no JSON", "Send one as the page does.") from fault
    if events is not None:
        _check_number(event.get("fn_index") if isinstance(event, dict) else None, called, events)
    for file in _files_in(event):
        path, url = (value if isinstance(value := file.get(name), str) else "" for name in ("path", "url"))
        _, away, rest = url.partition("://")
        if "://" in path or path.startswith("//") or (away and not knows(rest.partition("/")[0])):
            raise Refused(f"the event names a file that lies elsewhere: {(path or url)[:100]!r}", "Upload the file; nothing is fetched.")


def _check_number(number: object, called: str | None, events: Mapping[int, str]) -> None:
    """A number goes before a name, as gradio reads them."""
    if number is None and called is None:
        raise BadInput("the event says no fn_index", "Name one of those that /config lists.")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise BadInput(f"fn_index is {str(number)[:40]!r}", "It is the number of one of the events that /config lists.")
    if number not in events if number is not None else called not in events.values():
        raise NotFound(f"the page has no event {str(called if number is None else number)[:40]!r}", "/config lists those that it has.")


def _files_in(event: Any) -> Iterator[Mapping[str, Any]]:
    """What gradio could take for a file, and more."""
    ahead = [event]
    while ahead:
        value = ahead.pop()
        if isinstance(value, dict):
            if "meta" in value and "path" in value:
                yield value
            ahead.extend(value.values())
        elif isinstance(value, list):
            ahead.extend(value)
