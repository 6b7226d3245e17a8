"""Loss curves as a picture file, for a report or a paper."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogFormatter, MaxNLocator

from cmp.core.curves import Floats, Integers, LossCurve
from cmp.core.smoothing import smoothed
from cmp.core.thinning import thin
from cmp.errors import BadInput, NoSpace, Refused

# Okabe and Ito's colours, which people who see no difference between red and green can tell apart; black stays for text.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", ":", "-.")
_INK = "#2b2f36"
_QUIET = "#8a919c"
_CHANCE_ID = re.compile(rb'\bid="([a-z][0-9a-f]{10})"')  # matplotlib's names of marks and of what it cuts off at, other ones each time
_MOST = 4000  # points a line; the figure is 1500 dots wide


def curve_figure(
    curves: Sequence[LossCurve],
    path: Path,
    *,
    smoothing: float = 0.9,
    log: bool = False,
    markers: Sequence[int] = (),
    format: str | None = None,
) -> None:
    """Writes the curves to `path`: faint as logged, strong when smoothed, a dotted line at the step of each checkpoint (`markers`).

    `format` is "png" or "svg", by default what the file's suffix says. Steps with values that are not finite are gaps with a
    cross at the lower edge. `log` makes the value axis logarithmic; values that are not positive are gaps there, and without a
    positive one it is ignored. Raises BadInput for no curves, another format or a smoothing outside 0 to below 1, Refused or
    NoSpace if the file cannot be written.
    """
    kind = (format or path.suffix.lstrip(".")).lower()
    _save(curve_picture(curves, kind, smoothing=smoothing, log=log, markers=markers), path)


def curve_picture(
    curves: Sequence[LossCurve],
    kind: str,
    *,
    smoothing: float = 0.9,
    way: str = "past",
    log: bool = False,
    log_x: bool = False,
    markers: Sequence[int] = (),
) -> bytes:
    """The same as the bytes of a "png" or "svg". `way` is how it is smoothed, `log_x` makes the axis of steps logarithmic."""
    if kind not in ("png", "svg"):
        raise BadInput(f"the picture format is {kind!r}", "Give a file that ends in .png or .svg.")
    if not curves or not any(curve.steps.size for curve in curves):
        raise BadInput("there are no values to draw", "Name a run that has logged at least one scalar.")
    figure = _figure(curves, (smoothing, way), log, markers)
    if log_x and any((curve.steps > 0).any() for curve in curves):
        figure.axes[0].set_xscale("log", nonpositive="mask")
        figure.axes[0].xaxis.set_major_formatter(_PlainLog())
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    canvas = FigureCanvasSVG(figure) if kind == "svg" else FigureCanvasAgg(figure)
    picture = io.BytesIO()
    canvas.print_figure(picture, format=kind, dpi=150, metadata=metadata)
    return _renamed(picture.getvalue()) if kind == "svg" else picture.getvalue()


def _renamed(svg: bytes) -> bytes:
    """The same picture with its ids numbered: equal curves are equal files, and a page that is shared again stays as it was."""
    for number, name in enumerate(dict.fromkeys(_CHANCE_ID.findall(svg)), start=1):
        svg = svg.replace(name, b"id%d" % number)
    return svg


class _PlainLog(LogFormatter):
    """0.2 where matplotlib writes 2×10⁻¹; leaves out the same labels."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _figure(curves: Sequence[LossCurve], smoothing: tuple[float, str], log: bool, markers: Sequence[int]) -> Figure:
    figure = Figure(figsize=(10, 5.2), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    if log and any((np.isfinite(curve.values) & (curve.values > 0)).any() for curve in curves):
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_formatter(_PlainLog())
        axes.yaxis.set_minor_formatter(_PlainLog(minor_thresholds=(1.5, 0.5)))
    tags = list(dict.fromkeys(curve.tag for curve in curves))
    runs = list(dict.fromkeys(curve.run_id for curve in curves))
    for place, curve in enumerate(curves):
        names = [name for name, several in ((curve.run_id, len(runs) > 1), (curve.tag, len(tags) > 1)) if several]
        style = (_COLOURS[place % len(_COLOURS)], _DASHES[place // len(_COLOURS) % len(_DASHES)])
        _draw(axes, curve, smoothing, style, " · ".join(names) or curve.tag)
    _mark(axes, sorted(set(markers)))
    _dress(axes, tags, runs)
    weight, way = smoothing
    legend = [f"smoothed {weight:g}{', centred' if way == 'centred' else ''}, faint: as logged"] if weight else []
    legend += ["grey: overwritten by a restart"] if any(curve.abandoned for curve in curves) else []
    legend += ["×: not finite"] if any(curve.non_finite for curve in curves) else []
    axes.set_title("  ·  ".join(legend), loc="right", fontsize=9, color=_QUIET, pad=22)
    return figure


def _draw(axes: Axes, curve: LossCurve, smoothing: tuple[float, str], style: tuple[str, str], label: str) -> None:
    colour, dashes = style
    for branch in curve.abandoned:
        _line(axes, branch.steps, smoothed(branch.values, *smoothing), color=_QUIET, alpha=0.8, linewidth=1.0, zorder=2.2)
    if smoothing[0]:
        _line(axes, curve.steps, curve.values, color=colour, alpha=0.2, linewidth=0.8, zorder=1.5)
    strong = smoothed(curve.values, *smoothing)
    _line(axes, curve.steps, strong, color=colour, linewidth=1.8, linestyle=dashes, label=label, zorder=2.5)
    broken = curve.steps[~np.isfinite(curve.values)]
    if broken.size:
        few = broken[:: -(-broken.size // 200)]
        axes.plot(few, np.zeros(few.size), "x", color=colour, markersize=5, transform=axes.get_xaxis_transform(), clip_on=False)


def _line(axes: Axes, steps: Integers, values: Floats, **style: Any) -> None:
    """One line with gaps where values are not finite; a value between two gaps, or alone, is a dot."""
    if not steps.size:
        return
    keep = thin(steps, values, _MOST)
    steps, values = steps[keep], np.where(np.isfinite(values[keep]), values[keep], np.nan)
    axes.plot(steps, values, **style)
    here = np.isfinite(values)
    alone = here & ~np.append(False, here[:-1]) & ~np.append(here[1:], False)
    if alone.any():
        axes.plot(steps[alone], values[alone], ".", color=style["color"], alpha=style.get("alpha"), markersize=5)


def _mark(axes: Axes, markers: Sequence[int]) -> None:
    """A dotted line at each checkpoint; above it the step, where the number has room. `markers` ascend."""
    above = axes.get_xaxis_transform()
    for step in markers:
        axes.axvline(step, color=_QUIET, linewidth=0.8, linestyle=(0, (1, 3)), zorder=0.5)
    low, high = axes.get_xlim()
    free = float("inf")
    for step in reversed(markers):  # the last one is the one most looked for
        if free - step >= (high - low) * 0.06:
            axes.text(step, 1.012, f"{step}", transform=above, ha="center", va="bottom", fontsize=8, color=_QUIET)
            free = step


def _dress(axes: Axes, tags: Sequence[str], runs: Sequence[str]) -> None:
    # parse_math: a name that holds dollar signs is no formula.
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel(tags[0] if len(tags) == 1 else "value", color=_INK, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if axes.get_xlim()[1] >= 1e5 else "{x:.0f}")
    axes.tick_params(which="both", color=_QUIET, labelcolor=_INK)
    axes.grid(True, color="#e8eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=0.015)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c9ced6")
    title = runs[0] if len(runs) == 1 else f"{len(runs)} runs"
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", color=_INK, pad=22, parse_math=False)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        for text in axes.legend(frameon=False, loc="best", fontsize=9, labelcolor=_INK).get_texts():
            text.set_parse_math(False)


def _save(picture: bytes, path: Path) -> None:
    """Writes what has been drawn, so that a fault in drawing leaves an older picture as it was."""
    try:
        path.write_bytes(picture)
    except OSError as fault:
        no_space = fault.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (NoSpace if no_space else Refused)(
            f"{path} cannot be written: {fault.strerror}", "Give another --png or --svg file."
        ) from fault
