"""The two browser components, a matrix of images and a chart of curves: their scripts and styles, and how a page mounts them.

Both take one plain JSON value, and every string in it may be hostile: the templates below are constants that no data ever
enters, and the scripts put text on the page through the DOM only. They take their colours from a Gradio theme; a page without
one gives its body the class `cmp-alone`, and they follow the system's light or dark.

The matrix's value:
    title, note    str; `note` alone explains an empty matrix
    columns, rows  [{"key", "label", "sub"}]; the first column is the reference that "hold B" shows
    cells          [{"r", "c", "key", "state", "thumb", "full", "caption", "details": [[name, value]], "reused", "seconds",
                   "fault", "badge", "mark"}]; state is "waiting", "drawing", "done" or "fault"; a missing cell is waiting.
                   A picture with a `mark` in its corner, such as "preview", stays until the one that replaces it has arrived
    done, total    int; no progress is shown when total is 0
    rerolls        bool; whether rows can be drawn again with another seed
It tells `{"index": [r, c], "value", "r", "c", "key", "row", "column"}` of the cell that was opened, and as an edit
`{"what": "row"|"cell", "row", "column"}` of the row to draw with another seed, or of the cell to draw so below it.

The chart's value names where its points are asked for:
    source         str; the address below which they are, "" for a value that brings its own
    runs           [{"run", "label", "training": bool}]; all that can be shown
    chosen         [run]; those to show now, empty to leave the user's choice
    actions        ["compare" | "convert" | "star"]; what a checkpoint's mark offers; a single one is done at once
    compact        bool; a strip of about 160 pixels without lists and words
    empty          str in place of an empty chart
or brings them, thinned to what a screen can show (about 1,500 points each):
    series         [{"run", "label", "tag", "x": [..], "y": [number|null], "smooth": [number|null]|null}]
    markers        [{"run", "label", "step", "y": number|null}]; null puts it on the run's first line
    log            bool
    picking        str; what choosing a checkpoint's mark does, for a tooltip
    notes          [str] below the chart
It tells `{"index": step, "value": run, "run", "step"}` of the checkpoint that is to be compared, and as an edit
`{"what": "convert"|"star", "run", "step", "id", "on": bool}`. On the window it dispatches `cmp:step` with
`{"run", "step", "from": "curves"}` for the step below the pointer, and shows a line where such an event from elsewhere says.

The table's value:
    columns        [str]
    rows           [{"key", "usable": bool, "cells": [str | {"text", "sort"}], "thumb": url|null, "flaw": str|null}]
    ticked, many   [key]; bool, False lets one row at a time be chosen
It tells `{"ticked": [key]}` after every change, and where many can be ticked `{"looked": key}` of a row that was clicked beside its box.

The details' value:
    title, note    str; `note` alone explains an empty list
    facts          [{"label", "lines": [str], "tone": ""|"list"|"good"|"bad"|"ask"}]
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cmp.errors import NotFound

# In the order in which a page must load them.
ASSETS = (
    "matrix.css", "curves.css", "table.css", "details.css",
    "dom.js", "fullview.js", "cell.js", "matrix.js", "marks.js", "curves_data.js", "curves_plot.js", "curves_hover.js", "curves_bar.js",
    "curves_facts.js", "curves_theme.js", "curves_pointer.js", "curves.js", "table.js", "details.js", "drop.js",
)  # fmt: skip

MATRIX_TEMPLATE = '<div class="cmp-mount"></div>'
TABLE_TEMPLATE = '<div class="cmp-mount"></div>'
DETAILS_TEMPLATE = '<div class="cmp-mount"></div>'
CURVES_TEMPLATE = '<div class="cmp-mount"></div>'


def asset(name: str) -> str:
    """The text of one of `ASSETS`. Any other name raises `NotFound`, so a name from a URL may be passed on as it is."""
    if name not in ASSETS:
        raise NotFound(f"There is no viewer file {name!r}.", f"There are {', '.join(ASSETS)}.")
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _stamp() -> str:
    return hashlib.sha256("".join(asset(name) for name in ASSETS).encode()).hexdigest()[:12]


def _plotly_version() -> str:
    try:
        return version("plotly")
    except PackageNotFoundError:
        return "none"


def _tag(name: str, stamp: str) -> str:
    url = f"cmp/static/{name}?v={stamp}"  # relative, since the page may lie below another address than /
    return f'<link rel="stylesheet" href="{url}">' if name.endswith(".css") else f'<script defer src="{url}"></script>'


def _head() -> str:
    """Tags whose addresses change with the content, so that the files may be cached for ever."""
    own = [_tag(name, _stamp()) for name in ASSETS]
    return "\n".join([*own, _tag("plotly.min.js", _plotly_version())])


HEAD = _head()


# A page's scripts and its components arrive in no fixed order. While a tab is hidden, timers slow down but do go on.
_MOUNT = """
const names = [%(names)s];
const mount = element.querySelector(".cmp-mount");
const start = () => {
  const view = window.%(make)s(mount, { onPick: (what) => trigger("select", what), onEdit: (what) => trigger("edit", what) });
  view.update(props.value);
  watch("value", () => view.update(props.value));
};
const wait = (left) => {
  if (names.every((name) => window[name])) start();
  else if (left) setTimeout(() => wait(left - 1), 50);
  else mount.textContent = "The viewer's scripts could not be loaded. Reload the page.";
};
wait(600);
"""


def _mount(make: str, *needs: str) -> str:
    return _MOUNT % {"make": make, "names": ", ".join(f'"{name}"' for name in (make, *needs))}


def matrix_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that holds the matrix; its `select` event tells which cell was opened."""
    return _mount("cmpMatrix", "cmpDom", "cmpFullView", "cmpCell")


def curves_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that holds the chart; its `select` event tells which checkpoint was clicked."""
    return _mount(
        "cmpCurves", "cmpDom", "cmpMarks", "cmpCurveData", "cmpCurvePlot", "cmpCurveTip", "cmpCurveBar", "cmpCurveFacts", "Plotly"
    )


def table_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that holds a table; its `select` event tells which rows are ticked: `{"ticked": [key]}`."""
    return _mount("cmpTable", "cmpDom")


def details_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that holds facts about one thing."""
    return _mount("cmpDetails", "cmpDom")
