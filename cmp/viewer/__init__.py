"""The two browser components, a matrix of images and a chart of curves: their scripts and styles, and how a page mounts them.

Both take one plain JSON value, and every string in it may be hostile: the templates below are constants that no data ever
enters, and the scripts put text on the page through the DOM only. They take their colours from a Gradio theme; a page without
one gives its body the class `cmp-alone`, and they follow the system's light or dark.

The matrix's value:
    title, note    str; `note` alone explains an empty matrix
    verdict        str; which checkpoint is the best, by which rule and why, "" or none for nothing
    axes           [{"key", "label", "values": [{"key", "label", "sub", "details": [[name, value]]}]}]: every axis of the grid, also those
                   with one value. Keys are short: a link to a view holds them
    place          {axis key: "x" | "X" | "y" | "Y" | ""}: across, in groups across, down, in groups down, or one value at a time; until
                   the user decides otherwise
    step_axis      the key of the axis that is the training step, "" for none; its values may have "step", the number that a curve knows
    run            them by. The run that all cells are of, where no axis "run" tells it
    cells          [{"at", "key", "state"}] and, where there is any, "seconds", "reused", "fault", "badge", "mark", "caption", "details",
                   "thumb", "full"; `at` is an index into each axis' values, None for what belongs to all of them: the base model has no
                   strength. state is "waiting", "drawing", "done" or "fault"; no cell is waiting. A picture with a `mark` in its corner,
                   such as "preview", stays until the one that replaces it has arrived. "settings" is the text to be copied where there is
                   no address for it
    urls           {"thumb", "full", "settings"}: addresses in which {key} stands for the cell's key
    stars          bool; whether a checkpoint can be starred here, which is a value of the step axis other than "base model"; "known" where
                   not every step has one: then only what has a mark with an "id"
    marks          [{"at": {axis key: index}}] and what is known of what that names: "id", "loss", "score", "window", "converted", "star",
                   "note", "flaw", "details"; it stands at the heads that say all of these values
    scores         [{"key", "label", "better": "high" | "low" | "", "of": {cell key: number | [number, low, high]}}]: what cells can be
                   tinted by
    common         [[name, value]]: details of all cells
    link, source   str; the name of the page's parameter that holds the view, and what the view belongs to; without them there is no link
    export         str; the address below which files are made of the grid, with what is to be asked there; "" or none for nothing
    compare        {"cells": [at, at], "asked": str}; cells that are to be opened side by side, once for each text in "asked"
    done, total    int; no progress is shown when total is 0
    rerolls        [axis key]: what a row must say alone to be drawn again with another seed; empty where nothing can be
It tells `{"index": [r, c], "value", "key", "at": {axis key: value key | None}}` of the cell that was opened, and as an edit
`{"what": "row"|"cell", "at"}` of the row to draw with another seed, or of the cell to draw so below it; and
`{"what": "star", "at", "id", "on", "note"}` of the checkpoint to star, by its mark's id where it has one, which the next marks are to show.

What the user has arranged, the view, is one JSON value, too: {"place", "order": {axis key: [value key]}, "hidden": {axis key: [value
key]}, "pick": {axis key: value key}}. `core/arranging` gives it the same meaning as `arrange.js`:
1. An axis shows the values that `order` names, then the others in their own order, without those in `hidden` unless that is all of them.
2. Of an axis in place "" only the picked value counts, else its first one (of the step axis: its last).
3. Columns are the combinations that cells have on the axes in "X", then those in "x"; rows the same with "Y" and "y". A combination with a
   None stands only where no other agrees with it. They are sorted by the order of the values, None first.
4. A cell stands where its values agree with both heads, None agreeing with everything; of several the one with the fewest.

The chart's value names where its points are asked for:
    source         str; the address below which they are, "" for a value that brings its own
    runs           [{"run", "label", "training": bool}]; all that can be shown
    chosen         [run]; those to show now, empty to leave the user's choice
    usual          run; the one to show where nothing was shown before
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

The verdicts' value is what `ui/pick_values` makes. They tell `{"run", "ids"}` of the checkpoints that are to be compared, and as an edit
`{"what": "run"|"look"|"convert"|"star"|"measure", "run", "id", "on"}`.

The table's value:
    columns        [str]
    rows           [{"key", "usable": bool, "cells": [str | {"text", "sort"}], "thumb": url|null, "flaw": str|null}]
                   a cell may also have "sub", a second line; "strip" [{"url", "label"}], pictures by their steps; "line" [[x, y]] from 0
                   to 1, the course of a value ("pending" while it is being read); "time", Unix seconds or null; the first one "live", a run
                   that is being trained
    ticked, many   [key]; bool, False lets one row at a time be chosen
    title          str, above the rows
    find           str; what the rows are, where they may be filtered ("runs"); each row then has "find", the text that is searched
    remember       str; under which name this browser remembers the order of the rows
    downs, titles  [column] that are first asked for their largest, and {column: str}, what a head tells under the pointer
    unsorted       str; a column that no list of orders names
It tells `{"ticked": [key]}` after every change, and where many can be ticked `{"looked": key}` of a row that was clicked beside its box.

The details' value:
    title, note    str; `note` alone explains an empty list
    facts          [{"label", "lines": [str], "tone": ""|"list"|"good"|"bad"|"ask"}]

The value of what is occupied; a share is of 1, and a part's "key" names its colour:
    disks          [{"label", "text", "parts": [{"key", "label", "text", "share"}], "forecast": {"text", "bad": bool} | null}]
    runs           [{"key", "label", "sub", "live": bool, "text", "share", "parts", "could", "forecast", "checkpoints": [part]}]
    undo           [{"key", "kind": "trash"|"compact", "label", "sub", "text", "act"}]; "" as the act of what only hands can bring back
    begun          [str]; what a killed process has left
    writable       bool; whether runs are ticked
    busy           {"text", "share"} | null, how far measuring has come
It tells `{"ticked": [key]}` of runs, and as an edit `{"what": "undo", "kind", "key"}`.

The value of what would go:
    summary, note  str
    bars           [{"label", "text", "share", "trash"}]; "trash" is the part of the share that lies there
    groups, kept   [{"key", "label", "text", "notes": [str], "items": [{"label", "why", "text"}]}], and one of those or null
    busy           as above
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cmp.errors import NotFound

# In the order in which a page must load them.
ASSETS = (
    "matrix.css", "fullview.css", "curves.css", "table.css", "details.css", "pick.css", "storage.css", "alerts.css",
    "dom.js", "arrange.js", "heads.js", "cell.js", "others.js", "oklab.js", "pictures.js", "full_zoom.js", "compare.js", "difference.js",
    "full_panel.js", "full_history.js", "full_layout.js", "full_messages.js", "fullview.js", "panels.js", "size.js", "zoom.js", "look.js",
    "selectors.js", "arrange_panel.js", "export.js", "linking.js", "view_link.js", "chosen.js", "blink.js", "change_curves.js",
    "changes.js", "help.js", "matrix.js", "marks.js",
    "curves_data.js", "curves_axis.js", "curves_plot.js", "curves_hover.js", "curves_bar.js", "curves_facts.js", "curves_theme.js",
    "curves_pointer.js", "curves_choice.js", "curves.js", "table_cells.js", "table_find.js", "table.js", "details.js",
    "pick_plot.js", "pick_small.js", "share.js", "pick.js",
    "drop.js", "page_link.js", "storage.js", "storage_plan.js",
    "alerts.js",
)  # fmt: skip

VOTE_ASSETS = ("vote.css", "vote.js")  # of the voting page, which needs nothing of the others but dom.js
BUNDLES = ("viewer.css", "viewer.js")  # two requests instead of forty

_MATRIX_NEEDS = (
    "cmpDom", "cmpArrange", "cmpHeads", "cmpCell", "cmpOthers", "cmpOklab", "cmpPictures", "cmpFullZoom", "cmpCompare", "cmpDifference",
    "cmpFullPanel", "cmpFullHistory", "cmpFullLayout", "cmpFullMessages", "cmpFullView", "cmpPanels", "cmpSize", "cmpZoom", "cmpLook",
    "cmpSelectors", "cmpArrangePanel", "cmpExport", "cmpLinking", "cmpViewLink", "cmpChosen", "cmpBlink", "cmpChangeCurves", "cmpChanges",
    "cmpHelp",
)  # fmt: skip

MATRIX_TEMPLATE = '<div class="cmp-mount"></div>'
TABLE_TEMPLATE = '<div class="cmp-mount"></div>'
DETAILS_TEMPLATE = '<div class="cmp-mount"></div>'
STORAGE_TEMPLATE = '<div class="cmp-mount"></div>'
CURVES_TEMPLATE = '<div class="cmp-mount"></div>'
PICK_TEMPLATE = '<div class="cmp-mount"></div>'
ALERTS_TEMPLATE = '<div class="cmp-mount"></div>'


def asset(name: str) -> str:
    """The text of one of `ASSETS`, or of all scripts or styles in one of `BUNDLES`.

    Any other name raises `NotFound`, so a name from a URL may be passed on as it is.
    """
    if name in BUNDLES:
        return "\n".join(asset(one) for one in ASSETS if one.endswith(name.removeprefix("viewer")))
    if name not in (*ASSETS, *VOTE_ASSETS):
        raise NotFound(f"There is no viewer file {name!r}.", f"There are {', '.join(ASSETS)}.")
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _stamp() -> str:
    return hashlib.sha256("".join(asset(name) for name in (*ASSETS, *VOTE_ASSETS)).encode()).hexdigest()[:12]


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
    own = [_tag(name, _stamp()) for name in BUNDLES]
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
    return _mount("cmpMatrix", *_MATRIX_NEEDS)


def curves_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that holds the chart; its `select` event tells which checkpoint was clicked."""
    return _mount(
        "cmpCurves", "cmpDom", "cmpMarks", "cmpCurveData", "cmpCurvePlot", "cmpCurveTip", "cmpCurveBar", "cmpCurveFacts", "Plotly"
    )


def table_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that holds a table; its `select` event tells which rows are ticked: `{"ticked": [key]}`."""
    return _mount("cmpTable", "cmpDom", "cmpTableCells", "cmpTableFind")


def alerts_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that shows alerts, which it asks for itself."""
    return _mount("cmpAlerts", "cmpDom")


def details_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that holds facts about one thing."""
    return _mount("cmpDetails", "cmpDom")


def storage_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that shows what is occupied; `select` tells the ticked runs, `edit` what is to be brought back."""
    return _mount("cmpStorage", "cmpDom", "cmpSizes")


def storage_plan_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that shows what would go."""
    return _mount("cmpStoragePlan", "cmpDom", "cmpSizes")


def pick_on_load() -> str:
    """`js_on_load` of a `gr.HTML` that holds the verdicts; its `select` event tells which checkpoints are to be compared."""
    return _mount("cmpPick", "cmpDom", "cmpPickPlot", "cmpPickSmall", "cmpShare")


_VOTE_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Vote: %(name)s</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="%(up)scmp/static/vote.css?v=%(stamp)s">
<script defer src="%(up)scmp/static/dom.js?v=%(stamp)s"></script>
<script defer src="%(up)scmp/static/vote.js?v=%(stamp)s"></script>
</head>
<body data-up="%(up)s" data-run="%(run)s" data-name="%(name)s" data-closed="%(closed)s">
<main id="vote"></main>
</body>
</html>
"""


def vote_page(up: str, run: str, name: str, closed: str = "") -> str:
    """The voting page of a run, all texts escaped already; `up` leads from the page's address to the dashboard's, `closed` says why no
    votes are taken.
    """
    return _VOTE_PAGE % {"up": up, "run": run, "name": name, "stamp": _stamp(), "closed": closed}
