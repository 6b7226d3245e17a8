"""Every error that a user can meet, named by what the caller can do about it.

A message says what happened and quotes the value; `hint` says what to do. Anything that is not a `CmpError` is a fault of this
program and keeps its traceback. Exit codes and HTTP statuses are part of the contract with scripts.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

_SURROGATE = re.compile("[\ud800-\udfff]")  # how a path holds bytes that are no UTF-8; no JSON answer could be encoded with them


def _as_byte(found: re.Match[str]) -> str:
    return f"%{ord(found[0]) & 0xFF:02X}"


class CmpError(Exception):
    """Base of the family; raised only through its subclasses."""

    title: ClassVar[str] = "Failed"
    exit_code: ClassVar[int] = 70
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = _SURROGATE.sub(_as_byte, message)
        self.hint = _SURROGATE.sub(_as_byte, hint)
        super().__init__(self.message)

    @property
    def told(self) -> str:
        """What happened and what to do, as sentences."""
        return sentences(self.message, self.hint)

    def as_json(self) -> dict[str, object]:
        """The contract's error value: `{"error", "hint", "code"}`."""
        return {"error": self.message, "hint": self.hint, "code": self.exit_code}


class BadInput(CmpError):
    """A value that was given cannot be used; giving another one helps."""

    title, exit_code, http_status = "Cannot use that", 2, 422


class NotFound(CmpError):
    """What was named is not there."""

    title, exit_code, http_status = "Not found", 3, 404


class Unreadable(CmpError):
    """A file is there but is damaged, incomplete, or not permitted to be read."""

    title, exit_code, http_status = "Cannot read", 4, 422


class Refused(CmpError):
    """Doing it would lose something, or show something false."""

    title, exit_code, http_status = "Refused", 5, 409


class NoSpace(CmpError):
    """The disk cannot hold the result."""

    title, exit_code, http_status = "Not enough space", 6, 507


class Locked(CmpError):
    """Another process is doing the same thing right now."""

    title, exit_code, http_status = "In use", 75, 409


class Busy(Locked):
    """There is too much to do already. `retry_after` are the seconds after which asking again may help."""

    title, http_status = "Busy", 503

    def __init__(self, message: str, hint: str = "", retry_after: float = 10.0) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class TooOften(Busy):
    """This client has asked too often."""

    title, http_status = "Too often", 429


class Cancelled(CmpError):
    """The user stopped it."""

    title, exit_code, http_status = "Cancelled", 130, 409


def sentences(message: str, hint: str) -> str:
    """An error's two parts as they are read one after the other."""
    return f"{message}{'' if message.endswith(('.', '!', '?')) else '.'} {hint}" if hint else message


def why_not(fault: OSError) -> str:
    """The system's reason by itself, without number and path, which stand in the message already."""
    return fault.strerror or type(fault).__name__


def json_place(fault: Exception) -> str:
    """Where in a text the JSON ends: `, in line 3 at character 7`; "" where the fault does not tell."""
    return f", in line {fault.lineno} at character {fault.colno}" if isinstance(fault, json.JSONDecodeError) else ""


def as_error(message: str, hint: str, code: int) -> CmpError:
    """The error of that exit code, for a fault that was kept as a value."""
    kinds = {kind.exit_code: kind for kind in CmpError.__subclasses__()}
    return kinds.get(code, CmpError)(message, hint)
