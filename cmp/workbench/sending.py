"""Where alerts are sent besides the page: an address, a command. Only whoever starts the server names them."""

from __future__ import annotations

import http.client
import json
import shlex
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from cmp import __version__
from cmp.errors import BadInput, NotFound, Refused, why_not

_POSTING, _RUNNING = 10.0, 30.0  # seconds
_SCHEMES = ("http", "https")


class Target(Protocol):
    """Takes alerts. `name` gives away no secret."""

    @property
    def name(self) -> str: ...

    def send(self, told: Mapping[str, object]) -> None:
        """Raises Refused where it could not be told."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """Alerts are posted as JSON; the words stand in `text` and `content` as well, which is what chat programs show."""

    url: str

    @property
    def name(self) -> str:
        return f"webhook {urlsplit(self.url).hostname}"

    def send(self, told: Mapping[str, object]) -> None:
        text = f"{told['what']}. {told['hint']}"
        body = json.dumps({**told, "text": text, "content": text}).encode()
        head = {"Content-Type": "application/json", "User-Agent": f"cmp/{__version__}"}
        try:
            request = urllib.request.Request(self.url, body, head, method="POST")
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=_POSTING) as answer:
                answer.read(1000)
        except (OSError, http.client.HTTPException, ValueError) as fault:  # ValueError: a name that cannot be looked up
            why = f"HTTP {fault.code}" if isinstance(fault, urllib.request.HTTPError) else type(fault).__name__
            raise Refused(f"{self.name} did not take it: {why}", "Check the address and whether it answers.") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An alert goes to the address that was named and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Command:
    """A program that gets each alert as JSON on its standard input; no shell reads what is told."""

    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"command {self.words[0]}"

    def send(self, told: Mapping[str, object]) -> None:
        try:
            ended = subprocess.run(
                self.words,
                input=json.dumps(told).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_RUNNING,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"{self.name} had not ended after {_RUNNING:.0f} s and was stopped", "Let it hand its work on.") from None
        except OSError as fault:
            raise Refused(f"{self.name} could not be started: {why_not(fault)}", "Check that it is there and may be run.") from None
        if ended.returncode:
            raise Refused(f"{self.name} ended with {ended.returncode}", "0 says that the alert was taken.")


def targets_of(webhook: str | None, command: str | None) -> tuple[Target, ...]:
    """The targets that were named; raises BadInput or NotFound for one that could never be told anything."""
    found: list[Target] = []
    if webhook:
        if wrong := _wrong_with(webhook):
            raise BadInput(f"the alert webhook {wrong}", "Give an address such as https://hooks.example.org/….")
        found.append(Webhook(webhook))
    if command:
        try:
            words = tuple(shlex.split(command))
        except ValueError as fault:
            raise BadInput(f"the alert command {command!r} cannot be split into words: {fault}", "Close its quotes.") from fault
        if not words or shutil.which(words[0]) is None:
            raise NotFound(f"there is no program {words[0] if words else command!r} for the alert command", "Give its path in full.")
        found.append(Command(words))
    return tuple(found)


def _wrong_with(webhook: str) -> str | None:
    """Why nothing could ever be posted there, without repeating what may be a secret."""
    if not webhook.isascii() or not webhook.isprintable() or " " in webhook:
        return "has characters that no address has: write others as %XX, and a name as xn--…"
    try:
        parts = urlsplit(webhook)
        if parts.scheme not in _SCHEMES or not parts.hostname:
            return f"begins with {parts.scheme or webhook[:12]!r}"
        parts.hostname.encode("idna")  # as it is looked up
        if parts.port == 0:
            return "has the port 0"
    except ValueError:  # its own words would repeat parts of it
        return "has a name or a port that cannot be"
    return "has a name or password before an @, which is never sent" if "@" in parts.netloc else None
