"""The axis syntax: what people type for a list of steps, seeds or strengths, in the dialects they know.

500, 1000        these values
1-5              1 2 3 4 5            (A1111)
1-5 (+2)         1 3 5                (A1111)
1-10 [5]         five values from 1 to 10, evenly spaced (A1111)
500, 1000, .., 3000   continued by the distance of the two before (SwarmUI)
500:3000:500     start:stop:step, the stop included
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from cmp.core.runs import Checkpoint
from cmp.errors import BadInput

LONGEST = 10_000  # values; a slip like 1-999999999 must not fill the memory

_DIGITS = r"[0-9]{1,19}(?:\.[0-9]{1,8})?"  # seeds go up to 2⁶³; Decimal is exact up to 28 digits
_NUMBER = rf"-?{_DIGITS}"
_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})(?:\s*\(([+-]{_DIGITS})\)|\s*\[([0-9]{{1,9}})\])?\Z", re.ASCII)
_SLICE = re.compile(rf"({_NUMBER}):({_NUMBER}):({_NUMBER})\Z", re.ASCII)
_PLAIN = re.compile(rf"{_NUMBER}\Z", re.ASCII)
_HINT = "Write values like 500, 1000 or ranges like 1-5, 1-5 (+2), 1-10 [5], 500, 1000, .., 3000 or 500:3000:500."


def parse_axis(text: str, what: str) -> tuple[float, ...]:
    """The numbers an axis text stands for, in order, without repetition; raises BadInput that quotes the faulty part."""
    return tuple(float(value) for value in _parse(text, what))


def _parse(text: str, what: str) -> tuple[Decimal, ...]:
    values: list[Decimal] = []
    parts = [part.strip() for part in text.split(",")]
    for i, part in enumerate(parts):
        if part in ("..", "..."):
            following = parts[i + 1] if i + 1 < len(parts) else ""
            values.extend(_continued(values, following, text, what))
        else:
            values.extend(_values(part, text, what))
        if len(values) > LONGEST:
            raise BadInput(f"{what} {text!r} stands for more than {LONGEST} values", "Choose a shorter range.")
    if not values:
        raise BadInput(f"{what} is empty", _HINT)
    return tuple(dict.fromkeys(values))


def parse_whole_axis(text: str, what: str) -> tuple[int, ...]:
    """Like parse_axis, for what can only be whole: seeds and steps."""
    values = _parse(text, what)  # not by way of floats, which end being exact at 2⁵³
    for value in values:
        if value != int(value):
            raise BadInput(f"{what} {text!r} contains {value:g}", f"{what[:1].upper()}{what[1:]} must be whole numbers.")
    return tuple(int(value) for value in values)


def _values(part: str, text: str, what: str) -> list[Decimal]:
    if _PLAIN.match(part):
        return [Decimal(part)]
    if found := _RANGE.match(part):
        start, stop = Decimal(found[1]), Decimal(found[2])
        if found[4]:
            return _spaced(start, stop, int(found[4]), what, text)
        return _counted(start, stop, Decimal(found[3]) if found[3] else Decimal(1 if stop >= start else -1), what, text)
    if found := _SLICE.match(part):
        return _counted(Decimal(found[1]), Decimal(found[2]), Decimal(found[3]), what, text)
    raise BadInput(f"{what} {text!r}: cannot read {part!r}", _HINT)


def _counted(start: Decimal, stop: Decimal, step: Decimal, what: str, text: str) -> list[Decimal]:
    if step == 0 or (stop - start) * step < 0:
        raise BadInput(f"{what} {text!r}: from {start} one never reaches {stop} in steps of {step}", _HINT)
    count = int((stop - start) / step) + 1
    if count > LONGEST:
        raise BadInput(f"{what} {text!r} stands for {count} values, more than {LONGEST}", "Choose a shorter range.")
    return [start + step * i for i in range(count)]


def _spaced(start: Decimal, stop: Decimal, count: int, what: str, text: str) -> list[Decimal]:
    if not 1 <= count <= LONGEST:
        raise BadInput(f"{what} {text!r} asks for {count} values", f"Ask for 1 to {LONGEST}.")
    if count == 1:
        return [start]
    values = [start + (stop - start) * i / (count - 1) for i in range(count)]
    return [v.quantize(Decimal(1)) if "." not in f"{start}{stop}" else v for v in values]


def _continued(before: Sequence[Decimal], following: str, text: str, what: str) -> list[Decimal]:
    if len(before) < 2 or not _PLAIN.match(following):
        raise BadInput(f"{what} {text!r}: '..' needs two values before it and one behind it", _HINT)
    step, end = before[-1] - before[-2], Decimal(following)
    return _counted(before[-1], end, step, what, text)[1:] if before[-1] != end else []


def choose_checkpoints(text: str, checkpoints: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
    """The checkpoints an axis text chooses: `all`, `last 4`, keys such as `final`, or steps in any form of parse_axis.

    Checkpoints with a flaw are never among `all` and `last`; asked for by name they are, so that the reason is heard.
    """
    usable = [c for c in checkpoints if c.flaw is None]
    wanted = text.strip().lower()
    if wanted == "all":
        return tuple(usable)
    if found := re.fullmatch(r"last\s+([0-9]{1,9})", wanted, re.ASCII):
        if int(found[1]) < 1:
            raise BadInput("checkpoints 'last 0' chooses none", "Use last 1 or more.")
        return tuple(usable[-int(found[1]) :])
    named = {key: c for c in checkpoints for key in (c.key, *(alias.rpartition("@")[2] for alias in c.aliases))}
    chosen: list[Checkpoint] = []
    numeric = []
    for part in (part.strip() for part in text.split(",")):
        if part in named and not part.isdigit():
            chosen.append(named[part])
        else:
            numeric.append(part)
    steps = {c.step: c for c in reversed(checkpoints) if c.step is not None}
    for step in parse_whole_axis(", ".join(numeric), "checkpoints") if numeric else ():
        if step not in steps:
            raise BadInput(f"there is no checkpoint at step {step}", f"There are: {', '.join(c.key for c in checkpoints) or 'none'}.")
        chosen.append(steps[step])
    return tuple(sorted(dict.fromkeys(chosen), key=lambda c: c.sort_key))
