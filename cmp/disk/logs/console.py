"""Losses out of what a training wrote to its console and somebody kept: progress bars, rows of settings and plain lines.

Bars are tqdm's, whose redrawings of one line are divided by `\\r`: the last one of a step counts, and that of the newest step only once
the next step or a line's end shows that it is the last. Numbers stand behind the bar or in its title: `loss=0.1` of diffusers,
SimpleTuner and OneTrainer, `avr_loss=0.1` of kohya, `loss: 1.0e-01` of ai-toolkit. transformers prints `{'loss': 0.1, …}` just before
it draws the bar with that row's step. They are rounded as they were printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import nan
from pathlib import Path

from cmp.disk.logs.lines import whole_lines
from cmp.disk.logs.scalars import EventScalars, Rows, continued

_N = rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?(?:nan|inf)"
_ANSI = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\^_])")
_BAR = re.compile(rb"([^|]*?)[0-9]+%\|[^|]*\| *([0-9]{1,18})/([0-9]{1,18}) *\[([^\]]*)")
_COUNTED = re.compile(rb"(.*?)\b([0-9]{1,18})it *\[([^\]]*)")  # a bar that knows no end
_BEHIND = re.compile(rb"[^,]*?(?:it/s|s/it|\?)[^,]*,?(.*)", re.DOTALL)
_PAIR = re.compile(
    rb"(?:(?P<which>train(?:ing)?|val(?:idation)?|eval|test|avg|average|smooth)[ _])?(?P<key>[A-Za-z_][\w./]*)['\"]?"
    rb" *(?:[=:]|(?<=[Ll]oss)) *['\"]?(?P<value>" + _N + rb")(?!\w|\.[0-9])", re.IGNORECASE,
)  # fmt: skip
_STEP = re.compile(rb"\b(?:global[ _]?)?(?:step|iter|iteration)s?\b['\"]? *[=:#]? *\[?([0-9]{1,18})\b(?!\.[0-9])", re.IGNORECASE)
_OF_ALL = re.compile(rb"[\[(]([0-9]{1,18}) */ *[0-9]{1,18}[\])]")
_EPOCH = re.compile(rb"epoch\D{0,3}([0-9]{1,9})", re.IGNORECASE)
_LETTERS = re.compile(rb"[^a-z]+")
_LONGEST = 4096  # bytes of a line that is looked at


@dataclass(slots=True)
class _At:
    """Where the reading stands. `step` and `total` are those of the bar drawn last, `base` the steps of the epochs that are through where
    each has a bar of its own, `epoch` the newest that was named, `bar_epoch` that of the bar, `title` the letters of the bar that tells
    the loss, `last` the step of the loss told last.
    """

    step: int = 0
    total: int = 0
    base: int = 0
    epoch: int = -1
    bar_epoch: int = -1
    title: str | None = None
    last: int | None = None


@dataclass(slots=True)
class _Drawn:
    """Values whose step may still be drawn anew, or (`step` None) is not known before the next bar."""

    place: int
    step: int | None
    values: Mapping[str, float]


class _Reading:
    """Takes line after line. Reading may begin again at `end` with the state `safe`: what is not certain yet lies behind it."""

    def __init__(self, at: _At, start: int) -> None:
        self.at, self.safe, self.end = at, replace(at), start
        self.rows = Rows(at.last)
        self._drawn: _Drawn | None = None
        self._waiting: _Drawn | None = None

    def take(self, place: int, line: bytes) -> None:
        text = _ANSI.sub(b"", line)[:_LONGEST].strip()
        if bar := _BAR.match(text) or _COUNTED.match(text):
            self._bar(place, bar, line.endswith(b"\n"))
        elif text:
            self._text(place, text)
        if self._drawn is None and self._waiting is None:
            self._all_told(place + len(line))

    def _all_told(self, end: int) -> None:
        self.safe, self.end = replace(self.at), end

    def _bar(self, place: int, bar: re.Match[bytes], ended: bool) -> None:
        title, told = bar[1], bar[bar.lastindex or 0]
        n, total = int(bar[2]), int(bar[3]) if bar.re is _BAR else 0
        behind = _BEHIND.match(told)
        values = dict(_pairs(title)) | dict(_pairs(behind[1] if behind else told))
        self._epoch(title, n)
        if self._waiting and total >= self.at.total:
            if self._drawn and (n, total) != (self.at.step, self.at.total):
                self._tell(self._drawn)  # in the order of the steps
                self._drawn = None
            self._tell(replace(self._waiting, step=self._position(n, total)))
            self._waiting = None
        if not any("loss" in tag.lower() for tag in values):
            return
        name = _LETTERS.sub(b"", title.lower()).decode()
        self.at.title = self.at.title if self.at.title is not None else name
        if name != self.at.title:
            return
        if self._drawn and (n, total) != (self.at.step, self.at.total):
            self._tell(self._drawn)
            self._drawn = None
            if self._waiting is None:
                self._all_told(place)
        self._drawn = _Drawn(place, self._position(n, total), values)
        if ended:
            self._tell(self._drawn)
            self._drawn = None

    def _text(self, place: int, text: bytes) -> None:
        if text[:1] == b"{":
            values = {tag: value for tag, value in _pairs(text) if tag not in ("epoch", "step")}
            step = _STEP.search(text)
            if any("loss" in tag.lower() or tag == "learning_rate" for tag in values):
                row = _Drawn(place, int(step[1]) if step else None, values)
                self._waiting = None if step else row
                self._tell(row)
            return
        self._epoch(text, None)
        step = _STEP.search(text) or _OF_ALL.search(text)
        values = {tag: value for tag, value in _pairs(text) if "loss" in tag.lower() or tag.lower() in ("lr", "learning_rate")}
        if step and any("loss" in tag.lower() for tag in values):
            self._tell(_Drawn(place, int(step[1]), values))

    def _epoch(self, text: bytes, n: int | None) -> None:
        if found := _EPOCH.search(text):
            self.at.epoch = int(found[1])
        elif n is not None and b"epoch" in text.lower():  # a bar that counts them
            self.at.epoch = n

    def _position(self, n: int, total: int) -> int:
        """The step that a bar shows. A bar that begins again after its end, in another epoch, goes on where it was."""
        at = self.at
        if n < at.step:
            goes_on = total == at.total == at.step and at.epoch > at.bar_epoch
            at.base = at.base + total if goes_on else 0
        at.step, at.total, at.bar_epoch = n, total, at.epoch
        return at.base + n

    def _tell(self, drawn: _Drawn) -> None:
        if drawn.step is None:
            return
        for tag, value in drawn.values.items():
            self.rows.add(tag, drawn.step, value, nan, drawn.place)


def is_console(path: Path, head: bytes) -> bool:
    """Whether some line of the beginning tells a loss with its step."""
    reading = _Reading(_At(), 0)
    for number, line in enumerate(re.findall(rb"[^\r\n]*[\r\n]", head)):
        reading.take(number, line)
    return any("loss" in tag.lower() for tag in reading.rows.tags)


def read_console(path: Path, earlier: EventScalars | None = None) -> EventScalars:
    """Every number that was printed beside a loss, by step. A step before the last one is a start of the training there."""
    start = earlier.end if earlier else 0
    reading = _Reading(_At(**earlier.state) if earlier else _At(), start)  # type: ignore[arg-type]
    for place, line in whole_lines(path, start, b"\r\n"):
        reading.take(place, line)
    new = EventScalars(
        path, reading.rows.told(), reading.rows.starts(), start, reading.end, (), asdict(replace(reading.safe, last=reading.rows.last))
    )
    return continued(earlier, new) if earlier else new


def _pairs(text: bytes) -> Iterator[tuple[str, float]]:
    for found in _PAIR.finditer(text):
        which, key = (found["which"] or b"").decode(), found["key"].decode()
        yield f"{which.lower()}_{key}" if which else key, float(found["value"])
