"""A matrix of the page as a file to keep: made once, in a thread, for everyone who asks for the same thing at the same time."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from cmp.core.arranging import read_matrix, see
from cmp.core.packing import file_name
from cmp.core.progress import run_through
from cmp.core.publishing import SharePlan, Wanted
from cmp.core.views import LARGEST_VIEW, View, read_view
from cmp.errors import BadInput, Busy, NotFound
from cmp.guard import or_refusal
from cmp.workbench import Workbench
from cmp.workbench.callers import caller
from cmp.workbench.curtain import Curtain

SAMPLES = "samples/"
FILES = {  # the name in the address: what is written, and what that is called
    "sheet.png": ("sheet", "image/png"),
    "sheet.webp": ("sheet", "image/webp"),
    "cells.zip": ("zip", "application/zip"),
    "grid.html": ("html", "text/html; charset=utf-8"),
    "steps.gif": ("animation", "image/gif"),
    "steps.webp": ("animation", "image/webp"),
}
_AT_ONCE = 2  # exports that are made at the same time
_MOST_ASKING = 8  # requests, those that are made included; each holds one of the threads that all requests share
_MOST_BESIDE = 50  # runs
_KEPT = 900.0  # seconds for which a file that was made is handed out again
_MOST_BYTES = 2_000_000_000  # of all files that were made; what was asked for longest ago goes first
_JUST_NOW = 5.0  # seconds within which a file that was handed out may not be open yet
_COUNTS = {"animation": ("milliseconds",), "html": ("as_drawn",)}  # the options that change a file of the kind


class Exports:
    """The files that were made in the last minutes. Safe to use from several threads: who asks for what is being made waits for it."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._folder = bench.settings.home / "exports"
        self._guard, self._room = threading.Lock(), threading.BoundedSemaphore(_AT_ONCE)
        self._making: dict[str, tuple[threading.Lock, int]] = {}

    def get(self, value: Mapping[str, Any], view: object, name: str, options: Mapping[str, Any]) -> tuple[Path, tuple[str, ...]]:
        """The file of that name, made if need be, and in words what it does not show as it is; raises what stands against it.

        Raises Busy where many wait already. What changes nothing in the file makes no second one.
        """
        wanted = read_view(view)
        options = {option: options.get(option) for option in _COUNTS.get(FILES[name][0], ())} | {"owner": caller().owner}
        digest = _digest(value, wanted, name, options)
        folder = self._folder / digest
        with self._alone(digest):
            self._sweep(digest)
            if not (folder / "done.json").is_file():
                with self._room:
                    self._make(folder, value, wanted, name, options)
                self._shrink()
            os.utime(folder)
            told = json.loads((folder / "done.json").read_text(encoding="utf-8"))
        return folder / told["file"], tuple(told["notes"])

    @contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        with self._guard:
            if sum(count for _, count in self._making.values()) >= _MOST_ASKING:
                raise Busy(f"{_MOST_ASKING} requests for files are waiting already", "Ask again when some of them are done.")
            lock, count = self._making.get(digest, (threading.Lock(), 0))
            self._making[digest] = lock, count + 1
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, count = self._making.pop(digest)
                if count > 1:
                    self._making[digest] = lock, count - 1

    def _make(self, folder: Path, value: Mapping[str, Any], view: View, name: str, options: Mapping[str, Any]) -> None:
        from cmp.workbench.exporting import Matrix, write_export

        shutil.rmtree(folder, ignore_errors=True)  # what a killed process has begun
        retell = None if options["owner"] else Curtain(self._bench).picture
        matrix = Matrix(self._bench, value, view, as_drawn=bool(options.get("as_drawn")), scratch=folder / "within", retell=retell)
        try:
            made = write_export(FILES[name][0], matrix, folder / name, milliseconds=options.get("milliseconds"))
        finally:
            shutil.rmtree(folder / "within", ignore_errors=True)
        file = made.files[0]
        if len(made.files) > 1:  # one answer is one file
            file = folder / "parts.zip"
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for part in made.files:
                    archive.write(part, part.name)
                    part.unlink()
        (folder / "done.json").write_text(json.dumps({"file": file.name, "notes": made.notes}), encoding="utf-8")

    def _sweep(self, wanted: str) -> None:
        """Deletes what was made some time ago, but for what is being asked for or made now."""
        with self._guard:
            busy = set(self._making)
        with suppress(OSError):
            for folder in self._folder.iterdir():
                with suppress(OSError):
                    if time.time() - folder.stat().st_mtime > _KEPT and (folder.name == wanted or folder.name not in busy):
                        shutil.rmtree(folder, ignore_errors=True)

    def _shrink(self) -> None:
        """Deletes what was asked for longest ago until the rest is within the limit, but for what is being asked for or handed out now."""
        with self._guard:
            busy = set(self._making)
        kept = []
        with suppress(OSError):
            for folder in self._folder.iterdir():
                with suppress(OSError):  # another process may delete it meanwhile
                    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                    kept.append((folder.stat().st_mtime, size, folder))
        left = sum(size for _, size, _ in kept)
        for used, size, folder in sorted(kept):
            if left <= _MOST_BYTES:
                break
            made = (folder / "done.json").is_file()  # another process may be making it
            if made and folder.name not in busy and time.time() - used > _JUST_NOW:
                shutil.rmtree(folder, ignore_errors=True)
                left -= size


def _digest(value: Mapping[str, Any], view: View, name: str, options: Mapping[str, Any]) -> str:
    """A name for the file: views that show the same in the same places have one."""
    shown = [(one.shown, one.place, one.picked) for one in see(read_matrix(value)[0], view)]
    asked = json.dumps([value, shown, name, options], sort_keys=True, default=str)
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


def export_routes(bench: Workbench) -> list[BaseRoute]:
    """`GET cmp/export/SOURCE/FILE?view=JSON`. SOURCE is a grid's job or `samples/RUN`, with `beside=RUN` for each run beside that one; no
    path comes from a caller.

    `GET cmp/scores/RUN/FILE` gives the verdicts on a run; `GET cmp/share/TARGET/FILE` what it is handed over as, unless it is read-only.
    """
    exports = Exports(bench)
    one_at_a_time = threading.Lock()

    def answer(request: Request) -> Response:
        def make() -> Response:
            name = request.path_params["name"]
            if name not in FILES:
                raise NotFound(f"there is no export {name[:60]!r}", f"There are {', '.join(FILES)}.")
            value = value_of(bench, request.path_params["source"], request.query_params.getlist("beside"))
            value = value if caller().owner else Curtain(bench).hide(value)  # as the page shows it
            path, notes = exports.get(value, _view_in(request), name, _options_in(request))
            return _file(path, str(value.get("title") or ""), name, notes)

        return or_refusal(bench, make)

    def scores(request: Request) -> Response:
        return or_refusal(bench, lambda: _scores(bench, request.path_params["run"], request.path_params["name"]))

    def share(request: Request) -> Response:
        def make() -> Response:
            bench.require_writing()  # visitors do not wait for it
            with one_at_a_time:
                return _shared(bench, request.path_params["target"], request.path_params["name"])

        return or_refusal(bench, make)

    routes = {"export/{source:path}": answer, "scores/{run:path}": scores}
    routes |= {} if bench.settings.read_only else {"share/{target:path}": share}
    return [Route(f"/cmp/{where}/{{name}}", made) for where, made in routes.items()]


def _shared(bench: Workbench, target: str, name: str) -> Response:
    """`page.json`, what the page of a run would hold; `page.zip` that page; `model.zip` a checkpoint's LoRA with its card."""
    if name not in ("page.json", "page.zip", "model.zip"):
        raise NotFound(f"there is no export {name[:60]!r}", "There are page.json, page.zip and model.zip.")
    run, checkpoint = bench.find(target, only_ids=True)  # no path comes from a caller
    nowhere = bench.settings.home / "shares" / "download"  # for a plan wants a place; nothing is written there
    wanted = Wanted(nowhere, model="OWNER/NAME" if name == "model.zip" else None)
    with bench.shared((checkpoint or run).id, wanted) as planning:
        plan = run_through(planning)
        if name == "page.json":
            return JSONResponse(plan.as_json(None) | {"goes_to": None}, headers={"Cache-Control": "private, no-store"})
        packed = _packed(plan)
    called = file_name(plan.title, "run")
    told = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(called)}.zip", "Cache-Control": "private, no-store"}
    told |= {"X-Cmp-Notes": quote("; ".join(plan.notes), safe=" ,;%")} if plan.notes else {}
    return StreamingResponse(
        iter(lambda: packed.read(1 << 16), b""), media_type="application/zip", headers=told, background=BackgroundTask(packed.close)
    )


def _packed(plan: SharePlan) -> IO[bytes]:
    """The plan's files in a folder of its name, in a file that goes when it is closed."""
    packed = tempfile.TemporaryFile(dir=plan.draft.parent)  # noqa: SIM115  (it is closed once it was sent)
    within = file_name(plan.title, "run")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # pictures and weights are compressed as they are
        for file in plan.files:
            archive.write(plan.draft / file.path, f"{within}/{file.path}")
    packed.seek(0)
    return packed


def _scores(bench: Workbench, run_id: str, name: str) -> Response:
    """`scores.csv`, every score of every rule; or `verdicts.json`, each as `best --json` tells it."""
    from cmp.core.agreeing import scores_table, verdicts_json

    if name not in ("scores.csv", "verdicts.json"):
        raise NotFound(f"there is no export {name[:60]!r}", "There are scores.csv and verdicts.json.")
    run, _ = bench.find(run_id, only_ids=True)
    bench.recognise(run)
    verdicts = bench.verdicts(run)
    shown: Callable[[Any], Any] = (lambda value: value) if caller().owner else Curtain(bench).public
    out = io.StringIO(newline="")
    if name == "scores.csv":
        csv.writer(out).writerows(shown(scores_table(run, verdicts)))
    else:
        json.dump(shown(verdicts_json(run, verdicts)), out, ensure_ascii=False, indent=1)
    stem, _, ending = name.partition(".")
    called = file_name(f"{bench.name_of(run)} {stem}", stem)
    told = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(called)}.{ending}", "Cache-Control": "private, no-store"}
    kind = "text/csv; charset=utf-8" if ending == "csv" else "application/json"
    content = out.getvalue().encode("utf-8", "replace")
    return Response(content, media_type=kind, headers=told | {"X-Content-Type-Options": "nosniff"})


def value_of(bench: Workbench, source: str, beside: Sequence[str] = ()) -> Mapping[str, Any]:
    """The matrix of a source, as the page shows it; raises NotFound."""
    if source.startswith(SAMPLES):
        from cmp.ui.grid_drawing import trainer_grid

        if len(beside) > _MOST_BESIDE:
            raise BadInput(f"{len(beside)} runs are asked for beside {source.removeprefix(SAMPLES)!r}", f"At most {_MOST_BESIDE}.")
        found = (bench.find(name, only_ids=True)[0].id for name in (source.removeprefix(SAMPLES), *beside))
        return trainer_grid(bench, list(dict.fromkeys(found)))
    from cmp.ui.grid_jobs import grid_value

    return grid_value(bench, bench.jobs.find(source))


def _view_in(request: Request) -> object:
    text = request.query_params.get("view", "")
    if len(text.encode("utf-8", "surrogatepass")) > LARGEST_VIEW:
        raise BadInput(f"the view has {len(text)} characters", f"At most {LARGEST_VIEW} bytes are read.")
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError) as fault:
        raise BadInput(f"the view {text[:60]!r} is no JSON", "It is what the page's link carries.") from fault


def _options_in(request: Request) -> dict[str, Any]:
    """`ms`, how long a step is shown; `pictures=png` for a page with pictures as they were drawn."""
    asked = request.query_params.get("ms", "")
    if asked and not (asked.isascii() and asked.isdigit() and len(asked) < 7):
        raise BadInput(f"ms is {asked[:20]!r}", "Use milliseconds, in digits.")
    return {"milliseconds": int(asked) if asked else None, "as_drawn": request.query_params.get("pictures") == "png"}


def _file(path: Path, title: str, name: str, notes: tuple[str, ...]) -> Response:
    stem, _, ending = name.partition(".")
    called = file_name(f"{title} {stem}" if stem != "grid" and title else title, stem)
    ending, kind = ("zip", "application/zip") if path.name == "parts.zip" else (ending, FILES[name][1])
    headers = {
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox",  # a page that is looked at instead of kept must not act in this server's name
    }
    if notes:
        headers["X-Cmp-Notes"] = quote("; ".join(notes), safe=" ,;%")
    return FileResponse(path, media_type=kind, filename=f"{called}.{ending}", headers=headers)
