"""Names and addresses as they stand in headers: what a server is called, from where a page comes, who asks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

_HOST = r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?"
_HOST_HEADER = re.compile(_HOST, re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(r"(https?)://" + _HOST, re.ASCII | re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_NETWORK_BITS = 64  # of an IPv6 address: what lies below is one line's, and whoever has it may take any of those addresses
_LONGEST = 100


class Origin(NamedTuple):
    """From where a page comes, as browsers tell it."""

    scheme: str
    name: str
    port: int


def split_host(host: str) -> tuple[str, int | None]:
    """Name or number, without brackets, and port of a Host header; ("", None) for what is none."""
    found = _HOST_HEADER.fullmatch(host)
    if found is None or int(found[2] or 0) > 65535:
        return "", None
    name = found[1].strip("[]").lower()
    return ("", None) if found[1][0] == "[" and not is_address(name) else (name, int(found[2]) if found[2] else None)


def host_name(host: str) -> str:
    return split_host(host)[0]


def entry_name(entry: str) -> str:
    """The name in a setting, which may carry a port, or be a number without brackets or a pattern such as *.example.org."""
    return host_name(entry) or entry


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def read_origin(text: str) -> Origin | None:
    """None for "null" and whatever else is none of a page that was fetched."""
    found = _ORIGIN.fullmatch(text)
    name, port = split_host(text.partition("://")[2]) if found else ("", None)
    return Origin(found[1].lower(), name, port or _PORTS[found[1].lower()]) if found and name else None


def is_own(origin: Origin, host: str) -> bool:
    """Whether a page comes from where its request goes. Of the scheme a Host header says nothing."""
    name, port = split_host(host)
    return bool(name) and (origin.name, origin.port) == (name, port or _PORTS[origin.scheme])


def is_entry(origin: Origin, entries: Iterable[str]) -> bool:
    """Whether it is exactly one of the names; one without a port stands for the usual ports alone."""
    for entry in entries:
        port = split_host(entry)[1]
        if origin.name == entry_name(entry) and origin.port == (port or _PORTS[origin.scheme]):
            return True
    return False


def client_of(address: str) -> str:
    """By what those who ask are told apart: an address without its port, of IPv6 the network, whatever the spelling."""
    text = address.strip().lower()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text[:_LONGEST]
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, _NETWORK_BITS), strict=False))
        found = found.ipv4_mapped
    return str(found)
