"""The matrix as one HTML file that needs nothing else: it opens from a disk, offline, and can ask no other place for anything.

Pictures stand one by one behind the value, so that neither who writes the file nor who opens it holds all of them as one text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from typing import IO, Any

from cmp.viewer import ASSETS, asset

Picture = tuple[bytes, str]  # bytes, media type

# A picture's text is cut out of the page once it has become a blob: a cell's record stays short, however large the picture.
_START = """
(() => {
  "use strict";
  const { value, view } = JSON.parse(document.getElementById("cmp-value").textContent);
  const blob = (url) => {
    const [, type, text] = /^data:([a-z/]+);base64,(.*)$/.exec(url);
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
    return URL.createObjectURL(new Blob([bytes], { type }));
  };
  for (const part of document.querySelectorAll("script[data-cell]")) {
    const cell = value.cells[Number(part.dataset.cell)];
    for (const [name, url] of Object.entries(JSON.parse(part.textContent))) cell[name] = blob(url);
    cell.thumb ??= cell.full;
    part.remove();
  }
  for (const cell of value.cells) {
    if (cell.state === "done" && !cell.full) Object.assign(cell, { state: "fault", fault: "This picture could not be read." });
  }
  const matrix = window.cmpMatrix(document.getElementById("cmp-matrix"), {});
  matrix.update(value);
  matrix.setView(view);
})();
"""
_STYLE = "body.cmp-alone { margin: 16px; font-family: system-ui, sans-serif; color-scheme: light dark }\n"
_DARK = "@media (prefers-color-scheme: dark) { body.cmp-alone { background: #0f1218 } }\n"


def page_parts() -> tuple[str, list[str]]:
    """The styles, and the scripts in their order."""
    styles = "\n".join(asset(name) for name in ASSETS if name.endswith(".css"))
    scripts = [asset(name) for name in ASSETS if name.endswith(".js")]
    return _STYLE + _DARK + styles, [script.replace("</script", "<\\/script") for script in (*scripts, _START)]


def write_alone(
    file: IO[str], value: Mapping[str, Any], view: Mapping[str, Any], pictures: Iterable[tuple[int, Mapping[str, Picture]]]
) -> None:
    """Writes the page. `pictures` are those of the cells by their number, as "full" and, where that is large, "thumb"."""
    styles, scripts = page_parts()
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    # the scripts set styles of elements; no style can fetch anything
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    file.write('<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n')
    file.write(f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">\n')
    file.write('<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" content="no-referrer">\n')
    file.write(f"<title>{html.escape(str(value.get('title') or 'Matrix'))}</title>\n")
    file.write(f'<link rel="icon" href="data:,">\n<style>{styles}</style>\n</head>\n')
    file.write('<body class="cmp-alone">\n<div id="cmp-matrix"></div>\n')
    file.write(f'<script type="application/json" id="cmp-value">{to_json({"value": value, "view": view})}</script>\n')
    for number, shown in pictures:
        urls = {name: f"data:{kind};base64,{base64.b64encode(content).decode()}" for name, (content, kind) in shown.items()}
        file.write(f'<script type="application/json" data-cell="{number}">{to_json(urls)}</script>\n')
    for script in scripts:
        file.write(f"<script>{script}</script>\n")
    file.write("</body>\n</html>\n")


def to_json(value: object) -> str:
    """JSON that can stand in a script element: no text in it can end that."""
    told = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return told.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
