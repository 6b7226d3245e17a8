"""Logs with one row a step: CSV, TSV (DVCLive's `plots/metrics/**.tsv` too) and JSON lines, and MLflow's `metrics/TAG` files.

A table says which column is the step; TensorBoard's and our own downloads are such tables as well.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from cmp.disk.logs.lines import as_number, as_step, as_time, is_tag, is_time, step_name, whole_lines
from cmp.disk.logs.scalars import EventScalars, Rows, continued
from cmp.errors import Unreadable

_DELIMITERS = {".csv": ",;", ".tsv": "\t", "": ",;\t"}
_MLFLOW = re.compile(rb"-?[0-9]{1,19} \S+(?: -?[0-9]{1,19})?\r?\n", re.ASCII)
_DEEPEST = 4


def is_json_lines(path: Path, head: bytes) -> bool:
    row = _object(head.partition(b"\n")[0])
    return bool(row) and step_name(row) is not None


def is_table(path: Path, head: bytes) -> bool:
    return _header(path, head.partition(b"\n")[0]) is not None


def is_mlflow(path: Path, head: bytes) -> bool:
    return "metrics" in path.parts[:-1] and _MLFLOW.match(head) is not None


def read_json_lines(path: Path, earlier: EventScalars | None = None) -> EventScalars:
    """Every number of every row that says its step, nested ones as `outer/inner`; lines that are no such row are counted."""
    rows, start, bad = _begin(earlier)
    end = start
    for at, line in whole_lines(path, start):
        end = at + len(line)
        row = _object(line)
        name = step_name(row)
        step = as_step(row[name]) if name is not None else None
        if step is None:
            bad += bool(line.strip())
            continue
        time = next((as_time(row[key]) for key in row if is_time(key)), math.nan)
        for tag, value in _flat(row):
            if (number := as_number(value)) is not None and is_tag(tag):
                rows.add(tag, step, number, time, at)
    return _told(path, rows, start, end, bad, earlier)


def read_table(path: Path, earlier: EventScalars | None = None) -> EventScalars:
    """Every number of a table with a header, by column; raises Unreadable if no column of it is the step."""
    lines = whole_lines(path, 0)
    first = next(lines, (0, b""))[1]
    names = _header(path, first)
    if names is None:
        raise Unreadable(f"{path} is no table of a training: no column of it is called step", "Name that column `step`.")
    delimiter, header = names
    rows, start, bad = _begin(earlier)
    start = end = max(start, len(first))
    for at, line in whole_lines(path, start):
        end = at + len(line)
        cells = _cells(line, delimiter)
        row = dict(zip(header, cells, strict=False))
        step = as_step(row.get(step_name(row) or "", ""))
        if step is None or len(cells) > len(header):
            bad += bool(line.strip())
            continue
        time = next((as_time(row[key]) for key in row if is_time(key)), math.nan)
        for tag, text in _named(path, row):
            if (number := as_number(text)) is not None:
                rows.add(tag, step, number, time, at)
    return _told(path, rows, start, end, bad, earlier)


def read_mlflow(path: Path, earlier: EventScalars | None = None) -> EventScalars:
    """One tag of a run in MLflow's file store: a line is `MILLISECONDS VALUE STEP` (mlflow/store/tracking/file_store.py)."""
    rows, start, bad = _begin(earlier)
    tag, end = below(path, "metrics"), start
    for at, line in whole_lines(path, start):
        end = at + len(line)
        time, value, step = (*line.decode("utf-8", "replace").split(), "0", "", "")[:3]
        number, place = as_number(value), as_step(step)
        if number is None or place is None:
            bad += bool(line.strip())
            continue
        rows.add(tag, place, number, as_time(time), at)
    return _told(path, rows, start, end, bad, earlier)


def below(path: Path, folder: str) -> str:
    """The part of a path behind the last folder of that name, with / between."""
    parts = path.parts
    place = len(parts) - 1 - parts[::-1].index(folder)
    return "/".join(parts[place + 1 :])


def _begin(earlier: EventScalars | None) -> tuple[Rows, int, int]:
    if earlier is None:
        return Rows(), 0, 0
    last = earlier.state.get("last")
    return Rows(last if isinstance(last, int) else None), earlier.end, int(str(earlier.state.get("bad", 0)))


def _told(path: Path, rows: Rows, start: int, end: int, bad: int, earlier: EventScalars | None) -> EventScalars:
    state = {"last": rows.last, "bad": bad}
    some = "1 line" if bad == 1 else f"{bad} lines"
    notes = (f"{path.name}: {some} could not be read as a row and {'was' if bad == 1 else 'were'} left out",) if bad else ()
    new = EventScalars(path, rows.told(), rows.starts(), start, end, notes, state)
    return continued(replace(earlier, notes=()), new) if earlier else replace(new, start=0)


def _object(line: bytes) -> Mapping[str, object]:
    if line.lstrip()[:1] != b"{":
        return {}
    try:
        found = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _flat(row: Mapping[str, object], before: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    for key, value in row.items():
        if isinstance(value, dict) and depth < _DEEPEST:
            yield from _flat(value, f"{before}{key}/", depth + 1)
        else:
            yield before + key, value


def _cells(line: bytes, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.decode("utf-8-sig", "replace").rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:
        return []


def _header(path: Path, line: bytes) -> tuple[str, list[str]] | None:
    """The delimiter and the columns' names if one of them is the step and another may be a curve, else None."""
    for delimiter in _DELIMITERS.get(path.suffix.lower(), _DELIMITERS[""]):
        names = [name.strip() for name in _cells(line, delimiter)]
        numbers = [name for name in names if as_number(name) is not None]
        if len(set(names)) == len(names) > 1 and step_name(dict.fromkeys(names)) and any(map(is_tag, names)) and not numbers:
            return delimiter, names
    return None


def _named(path: Path, row: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Tag and text of each value in a row."""
    names = {name.lower(): name for name in row}
    if {"tag", "value"} <= set(names):  # one value a row, as our own download has it
        return [(row[names["tag"]], row[names["value"]])]
    if set(names) == {"wall time", "step", "value"}:  # TensorBoard's download of one tag
        return [(re.sub(r"^run-.*-tag-", "", path.stem), row[names["value"]])]
    tags = [(name, text) for name, text in row.items() if is_tag(name)]
    if len(tags) == 1 and path.suffix == ".tsv" and path.parts[-3:-1] != ("plots", "metrics") and "metrics" in path.parts[:-1]:
        return [(below(path.with_suffix(""), "metrics"), tags[0][1])]  # DVCLive's loss in train/loss.tsv
    return tags
