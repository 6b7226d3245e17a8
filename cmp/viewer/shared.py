"""A run's page to be put anywhere: matrices of pictures that lie beside it as files, its loss, verdicts, votes and settings.

It opens from a disk and from any server of files, and asks nobody else for anything. Without scripts all but the matrices is there.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmp.viewer.alone import page_parts, to_json

_STYLES = Path(__file__).with_name("shared.css")
_START = """
(() => {
  "use strict";
  if (location.protocol === "file:") { // a picture of a disk is another origin to every page
    Object.assign(window.cmpOklab, { readsTrue: () => false, falsified: "A page that is opened from a disk may not read pixels" });
  }
  for (const told of document.querySelectorAll("script[data-matrix]")) {
    const matrix = window.cmpMatrix(document.getElementById(told.dataset.matrix), {});
    matrix.update(JSON.parse(told.textContent));
  }
})();
"""


@dataclass(frozen=True, slots=True)
class Table:
    """`heads` above `rows`, whose first cell is a head, too; `caption` says what it is. `differs` are the rows to be marked."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    differs: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: sentences, a list, a picture by its path with what it shows in words, tables, a matrix."""

    title: str
    told: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    picture: tuple[str, str] | None = None
    tables: tuple[Table, ...] = ()
    matrix: Mapping[str, Any] | None = None


def shared_page(title: str, verdict: str, sections: Sequence[Section]) -> str:
    """The page. Every text in it may be hostile."""
    scripts = [*page_parts()[1][:-1], _START]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    # file: is for browsers to which 'self' means nothing on a disk
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src 'self' file: data: blob:; base-uri 'none'"
    head = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}; form-action \'none\'">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">',
        f'<title>{html.escape(title)}</title>\n<link rel="icon" href="data:,">',
        f"<style>{page_parts()[0]}\n{_STYLES.read_text(encoding='utf-8')}</style>\n</head>",
    ]
    body = [f'<body class="cmp-alone cmp-shared">\n<main>\n<h1>{html.escape(title)}</h1>']
    body += [f'<p class="cmp-shared-verdict">{html.escape(verdict)}</p>'] if verdict else []
    body += [_section(number, section) for number, section in enumerate(sections)]
    values = [_value(number, section.matrix) for number, section in enumerate(sections) if section.matrix is not None]
    return "\n".join((*head, *body, "</main>", *values, *(f"<script>{script}</script>" for script in scripts), "</body>\n</html>\n"))


def _value(number: int, matrix: Mapping[str, Any]) -> str:
    return f'<script type="application/json" data-matrix="matrix-{number}">{to_json(matrix)}</script>'


def _section(number: int, section: Section) -> str:
    parts = [f'<section aria-labelledby="title-{number}">\n<h2 id="title-{number}">{html.escape(section.title)}</h2>']
    parts += [f"<p>{html.escape(told)}</p>" for told in section.told]
    parts += [f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in section.notes)}</ul>"] if section.notes else []
    if section.picture:
        path, shows = section.picture
        parts.append(f'<img class="cmp-shared-chart" src="{html.escape(path)}" alt="{html.escape(shows)}">')
    parts += map(_table, section.tables)
    parts += [f'<div id="matrix-{number}"></div>'] if section.matrix is not None else []
    return "\n".join((*parts, "</section>"))


def _table(table: Table) -> str:
    heads = "".join(_head(head) for head in table.heads)
    rows = []
    for number, (first, *rest) in enumerate(table.rows):
        differs = ' class="is-different"' if number in table.differs else ""
        rows.append(f'<tr{differs}><th scope="row">{html.escape(first)}</th>{_cells(rest)}</tr>')
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    scrolled = f'<div class="cmp-shared-table" tabindex="0" role="group" aria-label="{html.escape(table.caption)}">'
    return f"{scrolled}<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _head(text: str) -> str:
    return f'<th scope="col">{html.escape(text)}</th>' if text else "<td></td>"


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td>{html.escape(text)}</td>" for text in texts)
