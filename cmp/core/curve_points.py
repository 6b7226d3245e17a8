"""The points of a curve as a screen needs them: thinned to what it can show, rounded to what it can tell apart, with nothing invented."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cmp.core.curves import Floats, Integers, LossCurve
from cmp.core.smoothing import DEFAULT, WAYS, smoothed
from cmp.core.thinning import ends_within, thin_within
from cmp.core.uncertainty import mean_interval
from cmp.errors import BadInput

AXES = ("step", "relative", "wall")
_STRETCHES = (80, 400)  # of one line: fewest and most
_ALL_STRETCHES = 2400  # of all lines of one chart
_WINDOWS = 24  # of the band
_MOST_BROKEN = 200


@dataclass(frozen=True, slots=True)
class View:
    """What of a curve is looked at, and how. `low` and `high` are in units of the axis: steps, seconds since the start, or Unix seconds."""

    axis: str = "step"
    weight: float = DEFAULT
    way: str = "past"
    log_x: bool = False
    log_y: bool = False
    low: float | None = None
    high: float | None = None
    trend: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A curve over the axis of a view, all points: `x` ascends."""

    x: Floats
    steps: Integers
    values: Floats
    smooth: Floats


def read_view(told: Mapping[str, str]) -> View:
    """A view out of the fields of an address; raises BadInput."""
    axis, way = told.get("axis", "step"), told.get("way", "past")
    if axis not in AXES:
        raise BadInput(f"the axis is {axis!r}", f"Use {', '.join(AXES)}.")
    if way not in WAYS:
        raise BadInput(f"the way of smoothing is {way!r}", f"Use {' or '.join(WAYS)}.")
    weight = _number(told, "smooth", DEFAULT)
    if weight is None or not 0 <= weight < 1:
        raise BadInput(f"smoothing is {told.get('smooth')!r}", "Give a number from 0 (none) to below 1, for example 0.9.")
    low, high = _number(told, "low"), _number(told, "high")
    if low is not None and high is not None and not low <= high:
        raise BadInput(f"the window is from {low} to {high}", "Give the lower end first.")
    return View(axis, weight, way, told.get("logx") == "1", told.get("logy") == "1", low, high, told.get("trend") == "1")


def _number(told: Mapping[str, str], name: str, otherwise: float | None = None) -> float | None:
    text = told.get(name, "")
    if not text:
        return otherwise
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > 1e18:
        raise BadInput(f"{name} is {text[:40]!r}", "Give a number.")
    return number


def line_of(curve: LossCurve, view: View, since: float | None = None) -> Line | None:
    """The curve over the view's axis; None where the axis is a time and none was logged. Smoothing sees every point, in order of steps.

    `since`: the Unix seconds from which a relative axis counts; None means the curve's own first.
    """
    smooth = smoothed(curve.values, view.weight, view.way)
    if view.axis == "step":
        x = curve.steps.astype(np.float64)
    elif curve.wall_times is None or not np.isfinite(curve.wall_times).all():
        return None
    else:
        start = float(curve.wall_times.min(initial=math.inf)) if since is None else since
        x = curve.wall_times - (start if view.axis == "relative" else 0.0)
    line = Line(x, curve.steps, curve.values, smooth)
    if x.size and np.diff(x).min(initial=0) < 0:  # a clock that was set back
        line = _taken(line, np.argsort(x, kind="stable"))
    return _taken(line, line.x > 0) if view.log_x else line


def _taken(line: Line, which: np.ndarray) -> Line:
    return Line(line.x[which], line.steps[which], line.values[which], line.smooth[which])


def window_of(lines: Sequence[Line], view: View) -> tuple[float, float]:
    """What the chart shows of the axis: the view's window, or all that the lines have."""
    low = view.low if view.low is not None else min((float(line.x[0]) for line in lines if line.x.size), default=0.0)
    high = view.high if view.high is not None else max((float(line.x[-1]) for line in lines if line.x.size), default=1.0)
    return low, max(high, low)


def points_json(line: Line, view: View, window: tuple[float, float], lines: int) -> dict[str, object]:
    """One line of a chart of so many: `raw`, `smooth` with the raw values `r` at its points, and what its height is found from.

    `e` are the places of those points that may be compared with other lines, as deltas; without it all may.
    """
    low, high = window
    stretches = min(max(_ALL_STRETCHES // max(lines, 1), _STRETCHES[0]), _STRETCHES[1])
    place: Callable[[Floats], Floats] = np.log2 if view.log_x else np.asarray
    at, floor = place(line.x), float(line.x[0]) if line.x.size else 1.0
    begin, end = (float(place(np.array(v))) for v in ((low if low > 0 else floor, max(high, floor)) if view.log_x else (low, high)))

    ends = ends_within(at, begin, end, stretches)

    def thinned(values: Floats) -> dict[str, object]:
        keep = thin_within(at, values, begin, end, stretches)
        told: dict[str, object] = {"x": _deltas(line.x[keep], view.axis), "y": _short(values[keep])}
        if values is not line.values:
            told["r"] = _short(line.values[keep])
        if ends is not None:
            told["e"] = np.diff(np.searchsorted(keep, ends), prepend=0).tolist()
        return told if view.axis == "step" else told | {"s": _deltas(line.steps[keep], "step")}

    inside = slice(int(np.searchsorted(line.x, low)), int(np.searchsorted(line.x, high, side="right")))
    broken = line.x[inside][~np.isfinite(line.values[inside])]
    told: dict[str, object] = {"raw": thinned(line.values), "points": inside.stop - inside.start}
    told["smooth"] = thinned(line.smooth) if view.weight else None
    told |= _heights(line.values[inside], line.smooth[inside], view.log_y)
    if broken.size:
        told["broken"] = [float(x) for x in broken[:: -(-broken.size // _MOST_BROKEN)]]
    if view.trend:
        told["trend"] = _trend(line.x[inside], line.values[inside])
    return told


def _deltas(x: np.ndarray, axis: str) -> list[float]:
    """The first value, then how far each lies from the one before it: short numbers. Times are in milliseconds."""
    whole = x.astype(np.int64) if axis == "step" else np.round(x * 1000).astype(np.int64)
    return [int(v) for v in np.diff(whole, prepend=0)]


def _short(values: Floats) -> list[float | None]:
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]


def _heights(values: Floats, smooth: Floats, log_y: bool) -> dict[str, object]:
    """`full`: from the lowest to the highest value; `usual`: the same without what lies far off nearly all others."""
    shown = [v[np.isfinite(v) & ((v > 0) if log_y else True)] for v in (values, smooth)]
    if not shown[0].size:
        return {"full": None, "usual": None}
    low, high = float(shown[0].min()), float(shown[0].max())
    scale: Callable[[Floats], Floats] = np.log if log_y else np.asarray
    a, b = np.quantile(scale(shown[0]), [0.05, 0.95])
    c, d = np.quantile(scale(shown[1]), [0.01, 0.99]) if shown[1].size else (a, b)
    ends = np.array([min(a - 0.35 * (b - a), c), max(b + 0.35 * (b - a), d)])
    usual = np.exp(ends) if log_y else ends
    return {"full": _short(np.array([low, high])), "usual": _short(np.array([max(low, usual[0]), min(high, usual[1])]))}


def _trend(x: Floats, values: Floats) -> dict[str, float] | None:
    """A straight line by least squares through all points of the window: its two heights."""
    finite = np.isfinite(values)
    x, values = x[finite], values[finite]
    if values.size < 3 or x[0] == x[-1]:
        return None
    slope, height = np.polyfit(x - x[0], values, 1)
    return {"low": float(x[0]), "high": float(x[-1]), "from": float(height), "to": float(height + slope * (x[-1] - x[0]))}


def band_json(line: Line, window: tuple[float, float], log_x: bool) -> list[list[float]]:
    """[from, to, mean, low, high] of equal windows of the axis: where the mean of each lies, at 95 %. Those of few points are left out."""
    low, high = window
    if log_x:
        low = max(low, float(line.x[0]) if line.x.size else 1.0)
    edges = (np.geomspace if log_x else np.linspace)(low, max(high, low), _WINDOWS + 1)
    cuts = np.searchsorted(line.x, edges)
    cuts[-1] = np.searchsorted(line.x, edges[-1], side="right")
    found = []
    for i, (first, end) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
        interval = mean_interval(line.values[first:end], seed=i)
        if interval:
            x = [float(f"{v:.8g}") for v in (edges[i], edges[i + 1])]
            found.append([*x, *(float(f"{v:.5g}") for v in (interval.value, interval.low, interval.high))])
    return found


def marks_json(line: Line, steps: Sequence[int], axis: str = "step") -> list[list[float | None]]:
    """[step, x, height] of each checkpoint on the line: as high as at its own step, else as at the last one before it, if that is not far.

    A run that logs every tenth step ends a little before its last checkpoint.
    """
    if not line.steps.size:
        return []
    order = np.argsort(line.steps, kind="stable")
    ascending = line.steps[order]
    slack = 0.05 * max(float(ascending[-1] - ascending[0]), 1.0)
    marks: list[list[float | None]] = []
    for step in steps:
        at = int(np.searchsorted(ascending, step, side="right")) - 1
        near = at if at >= 0 else 0
        if abs(float(ascending[near]) - step) > slack:
            continue
        x = float(step) if axis == "step" else float(line.x[order[near]])
        marks.append([step, x, *_short(line.smooth[order[near] : order[near] + 1])])
    return marks
