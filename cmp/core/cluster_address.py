"""Where a Ray cluster is: `local`, `local:N` or HOST:PORT."""

from __future__ import annotations

from cmp.errors import BadInput

LOCAL = "local"


def local_workers(address: str) -> int | None:
    """How many workers `local:N` asks for, None where nothing is said; raises BadInput for what is no address."""
    place, _, count = address.partition(":")
    if place == LOCAL and address != LOCAL:
        if not _is_number(count, 1024):
            raise BadInput(f"the Ray address is {address!r}", "Write local, or local:4 for four workers on this machine.")
        return int(count)
    if address != LOCAL and (not place or "/" in address or not _is_number(count, 65535)):
        raise BadInput(f"the Ray address is {address!r}", "Give local, or HOST:6379 as `ray start --head` shows it.")
    return None


def _is_number(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= most
