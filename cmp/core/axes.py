"""The axis syntax: what people type for a list of steps, seeds, strengths or names, in the dialects they know.

500, 1000        these values
1-5              1 2 3 4 5            (A1111)
1-5 (+2)         1 3 5                (A1111); 10-5 (-3) and 1-3 (+0.5) alike
1-10 [5]         five values from 1 to 10, evenly spaced (A1111); 0-1 [3] alike
500, 1000, .., 3000   continued by the distance of the two before (SwarmUI); ... alike
500:3000:500     start:stop:step, the stop included
"a, b", c        a value in quotes may hold commas; a quote within it is written twice, as in CSV
a, b || c        where || stands outside quotes, it separates and the comma does not (SwarmUI)
1-5, SKIP: 3     what stands behind SKIP: is left out, whichever part names it (SwarmUI)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from cmp.errors import BadInput

LONGEST = 10_000  # values; a slip like 1-999999999 must not fill the memory
LONGEST_TEXT = 100_000  # characters
RANDOM = "-1"  # among seeds: one that is drawn once

_DIGITS = r"[0-9]{1,19}(?:\.[0-9]{1,8})?"  # seeds go up to 2⁶³; Decimal is exact up to 28 digits
_NUMBER = rf"-?{_DIGITS}"
_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})(?:\s*\(\s*([+-]{_DIGITS})\s*\)|\s*\[\s*([0-9]{{1,9}})\s*\])?\Z", re.ASCII)
_SLICE = re.compile(rf"({_NUMBER})\s*:\s*({_NUMBER})\s*:\s*({_NUMBER})\Z", re.ASCII)
_PLAIN = re.compile(rf"{_NUMBER}\Z", re.ASCII)
_FINE = Decimal("0.00001")  # evenly spaced values are rounded to what A1111 rounds them to
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_SKIP = re.compile(r"SKIP\s*:\s*", re.IGNORECASE)
_PIECE = re.compile(rf"\s*(?:{_SKIP.pattern})?(?:{_QUOTED.pattern})?(?:[^,|]|\|(?!\|))*", re.IGNORECASE)
_HINT = "Write values like 500, 1000 or ranges like 1-5, 1-5 (+2), 1-10 [5], 500, 1000, .., 3000 or 500:3000:500."

_SEEDS_HINT = "Write seeds like 0, 1-4 or 7, 11, or -1 for a random one."


@dataclass(frozen=True, slots=True)
class Part:
    """One value as it was typed, without its quotes and without SKIP:."""

    text: str
    skipped: bool = False
    quoted: bool = False


def split_axis(text: str, what: str, *, commas: bool = True) -> tuple[Part, ...]:
    """The parts of an axis text; without `commas` only || separates. Raises BadInput for a quote that is never closed.

    A quote counts where a value begins: 5" are five inches.
    """
    if len(text) > LONGEST_TEXT:
        raise BadInput(f"{what} has {len(text)} characters", f"Use at most {LONGEST_TEXT}.")
    pieces, between, at = [], [], 0
    while True:
        found = _PIECE.match(text, at)
        assert found is not None  # all of it is optional
        pieces.append(found[0])
        if found.end() == len(text):
            break
        between.append("||" if text.startswith("||", found.end()) else ",")
        at = found.end() + len(between[-1])
    if "||" in between or not commas:
        pieces = _joined(pieces, between)
    return tuple(_part(piece.strip(), text, what) for piece in pieces)


def _joined(pieces: Sequence[str], between: Sequence[str]) -> list[str]:
    """The pieces between bars, with the commas in them."""
    out = [pieces[0]]
    for separator, piece in zip(between, pieces[1:], strict=True):
        if separator == "||":
            out.append(piece)
        else:
            out[-1] += separator + piece
    return out


def _part(piece: str, text: str, what: str) -> Part:
    skip = _SKIP.match(piece)
    value = piece[skip.end() :] if skip else piece
    if not value.startswith('"'):
        return Part(value, bool(skip))
    quoted = _QUOTED.match(value)
    if quoted is None:
        raise BadInput(f"{what} {_short(text)}: the quote of {_short(value)} is not closed", 'Write "…"; a quote within is written twice.')
    whole = quoted.end() == len(value)
    return Part(value[1:-1].replace('""', '"') if whole else value, bool(skip), whole)


def _short(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}…")


# -- numbers ---------------------------------------------------------------------------------------------------------------


def parse_axis(text: str, what: str) -> tuple[float, ...]:
    """The numbers an axis text stands for, in order, without repetition; raises BadInput that quotes the faulty part."""
    return tuple(map(float, _kept(_expand(split_axis(text, what), text, what), text, what)))


def parse_whole_axis(text: str, what: str) -> tuple[int, ...]:
    """Like parse_axis, for what can only be whole: seeds and steps."""
    return _whole(_kept(_expand(split_axis(text, what), text, what, whole=True), text, what), text, what)


def parse_seeds(text: str, draw: Callable[[], int], what: str = "seeds") -> tuple[int, ...]:
    """Like parse_whole_axis; each -1 becomes a seed that `draw` gives, now and once, so that all cells of a grid share it.

    Only a value of its own is meant so: a range that runs below 0 is refused.
    """
    try:
        seeds = _whole(_kept(_expand(split_axis(text, what), text, what, draw, whole=True), text, what), text, what)
    except BadInput as fault:
        raise BadInput(fault.message, _SEEDS_HINT if fault.hint == _HINT else fault.hint) from None
    if below := [seed for seed in seeds if seed < 0]:
        raise BadInput(f"{what} {_short(text)} contains {below[0]}", "Use whole numbers from 0 on, or -1 by itself for a random one.")
    return seeds


Listed = list[tuple[Decimal, bool]]  # each value, and whether it is left out


def _expand(parts: Sequence[Part], text: str, what: str, draw: Callable[[], int] | None = None, *, whole: bool = False) -> Listed:
    values: Listed = []
    for i, part in enumerate(parts):
        if part.text in ("..", "...") and not part.quoted:
            following = parts[i + 1].text if i + 1 < len(parts) else ""
            found = _continued([value for value, _ in values], following, text, what)
        elif draw and part.text == RANDOM:
            found = [Decimal(draw())]
        else:
            found = _values(part.text, text, what, whole)
        values += [(value, part.skipped) for value in found]
        if len(values) > LONGEST:
            raise BadInput(f"{what} {_short(text)} stands for more than {LONGEST} values", "Choose a shorter range.")
    return values


def _kept(values: Listed, text: str, what: str) -> tuple[Decimal, ...]:
    left_out = {value for value, skipped in values if skipped}
    kept = tuple(dict.fromkeys(value for value, _ in values if value not in left_out))
    if not kept:
        raise BadInput(f"{what} {_short(text)} leaves nothing", "Not all values can be left out with SKIP:.")
    return kept


def _whole(values: Iterable[Decimal], text: str, what: str) -> tuple[int, ...]:
    out = []
    for value in values:  # not by way of floats, which end being exact at 2⁵³
        if value != int(value):
            raise BadInput(f"{what} {_short(text)} contains {value:g}", f"{what[:1].upper()}{what[1:]} must be whole numbers.")
        out.append(int(value))
    return tuple(out)


def _values(part: str, text: str, what: str, whole: bool) -> list[Decimal]:
    if _PLAIN.match(part):
        return [Decimal(part)]
    if found := _RANGE.match(part):
        start, stop = Decimal(found[1]), Decimal(found[2])
        if found[4]:
            return _spaced(start, stop, int(found[4]), what, text, Decimal(1) if whole else _FINE)
        return _counted(start, stop, Decimal(found[3]) if found[3] else Decimal(1 if stop >= start else -1), what, text)
    if found := _SLICE.match(part):
        return _counted(Decimal(found[1]), Decimal(found[2]), Decimal(found[3]), what, text)
    raise BadInput(f"{what} {_short(text)}: cannot read {_short(part)}", _HINT)


def _counted(start: Decimal, stop: Decimal, step: Decimal, what: str, text: str) -> list[Decimal]:
    if step == 0 or (stop - start) * step < 0:
        raise BadInput(f"{what} {_short(text)}: from {start} one never reaches {stop} in steps of {step}", _HINT)
    count = int((stop - start) / step) + 1
    if count > LONGEST:
        raise BadInput(f"{what} {_short(text)} stands for {count} values, more than {LONGEST}", "Choose a shorter range.")
    return [start + step * i for i in range(count)]


def _spaced(start: Decimal, stop: Decimal, count: int, what: str, text: str, unit: Decimal) -> list[Decimal]:
    if not 1 <= count <= LONGEST:
        raise BadInput(f"{what} {_short(text)} asks for {count} values", f"Ask for 1 to {LONGEST}.")
    if count == 1:
        return [start]
    return [(start + (stop - start) * i / (count - 1)).quantize(unit) for i in range(count)]


def _continued(before: Sequence[Decimal], following: str, text: str, what: str) -> list[Decimal]:
    if len(before) < 2 or not _PLAIN.match(following):
        raise BadInput(f"{what} {_short(text)}: '..' needs two values before it and one behind it", _HINT)
    step, end = before[-1] - before[-2], Decimal(following)
    return _counted(before[-1], end, step, what, text)[1:] if before[-1] != end else []


# -- names and texts -------------------------------------------------------------------------------------------------------


def parse_text_axis(text: str, what: str, known: Sequence[str] = (), *, commas: bool = True) -> tuple[str, ...]:
    """The texts an axis stands for, in order, without repetition. An empty one is meant only in quotes.

    With `known` each must be one of these, whatever its case and spaces, and `all` stands for all of them. Raises BadInput.
    """
    parts = split_axis(text, what, commas=commas)
    listed: list[tuple[str, bool]] = []
    for part in parts:
        if not part.text and not part.quoted:
            raise BadInput(f"{what} {_short(text)} has an empty value", 'Write an empty one as "".')
        if known and _folded(part.text) == "all":
            listed += [(name, part.skipped) for name in known]
        else:
            listed.append((match_name(part.text, what, known) if known else part.text, part.skipped))
    left_out = {value for value, skipped in listed if skipped}
    kept = tuple(dict.fromkeys(value for value, _ in listed if value not in left_out))
    if not kept:
        raise BadInput(f"{what} {_short(text)} leaves nothing", "Not all values can be left out with SKIP:.")
    return kept


def match_name(text: str, what: str, known: Sequence[str]) -> str:
    """The known name that is meant, whatever its case and spaces; raises BadInput that lists them."""
    if text in known:
        return text
    found = [name for name in known if _folded(name) == _folded(text)]
    if len(found) != 1:
        told = f"{what} {_short(text)} may mean {' or '.join(found)}" if found else f"{what} is {_short(text)}"
        raise BadInput(told, f"Use one of: {', '.join(known) or 'none'}.")
    return found[0]


def _folded(name: str) -> str:
    return "".join(name.split()).casefold()


def split_stack(text: str) -> tuple[str, tuple[float, ...]]:
    """The target and the strengths of LORA[:AXIS]. What stands behind a colon belongs to the target unless it is an axis."""
    for at in (i for i, character in enumerate(text) if character == ":" and i):
        try:
            return text[:at].strip(), parse_axis(text[at + 1 :], "the strengths")
        except BadInput:
            continue  # ids may have colons too, ROOT:RUN
    return text.strip(), (1.0,)


def quoted(value: str) -> str:
    """One value of a text axis, whatever is in it."""
    return '"' + value.replace('"', '""') + '"'
