"""Files that a page event names: those that were uploaded before. Gradio would fetch an address that is named as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cmp.errors import BadInput, Refused


def check_event_files(body: bytes, knows: Callable[[str], bool]) -> None:
    """Raises Refused for a file that lies elsewhere, BadInput for what is no JSON. `knows` tells this server by a Host header."""
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as fault:
        raise BadInput("the event is no JSON", "Send one as the page does.") from fault
    for file in _files_in(event):
        path, url = (value if isinstance(value := file.get(name), str) else "" for name in ("path", "url"))
        _, away, rest = url.partition("://")
        if "://" in path or path.startswith("//") or (away and not knows(rest.partition("/")[0])):
            raise Refused(f"the event names a file that lies elsewhere: {(path or url)[:100]!r}", "Upload the file; nothing is fetched.")


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
