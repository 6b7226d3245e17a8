"""Has another instance of this program draw cells: LoRA bytes go there, pictures come back, and each is checked before it is kept.

What is drawn there is kept under the key that this instance works out itself, from its own digests of the weights and the base and from
what the other one says of its device and number type. All else that changes pixels must be the same on both sides.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from PIL import Image, UnidentifiedImageError

from cmp import __version__
from cmp.core.errands import MOST_BYTES, MOST_CELLS, ROUTE, cell_json
from cmp.core.grids import Cell, Fault, Tile
from cmp.core.infotext import to_infotext
from cmp.core.progress import Progress
from cmp.disk.ready import Ready
from cmp.disk.store import Store
from cmp.disk.tensors import read_tensors
from cmp.disk.writing import head_of
from cmp.engine.draw import Steps
from cmp.engine.drawn_as import drawn_as
from cmp.engine.prepare import Prepared, Preparing, size_of
from cmp.engine.studio import Studio
from cmp.errors import CmpError, NotFound, Refused, Unreadable, as_error, why_not
from cmp.pictures.files import save_png
from cmp.pictures.settings import check_size

_PATIENCE = 600.0  # seconds without a line: the other one may have to load a base model first
_LONGEST_LINE = 200_000_000  # bytes; a picture is one line
_OWN = ("device", "dtype")  # the circumstances in which the other instance may differ: they are part of the key


@dataclass(slots=True)
class _Told(Studio):
    """The other instance's studio, as far as keys need it."""

    told: dict[str, str] = field(default_factory=dict)

    def circumstances(self, base: object = None) -> dict[str, str]:
        return dict(self.told)


@dataclass(slots=True)
class Elsewhere:
    """One grid that is drawn by the instance at `address`."""

    address: str
    token: str | None
    preparing: Preparing
    studio: Studio
    store: Store
    total: int = 0
    done: int = 0
    _there: dict[str, Preparing] = field(default_factory=dict)  # by the base's digest

    def draw(self, cells: Sequence[Cell], preview: bool = False) -> Steps:
        """One tile per cell, whole at once; cells with the same checkpoint are sent together. A cell that fails becomes its fault."""
        self.total = len(cells)
        waiting: dict[tuple[object, ...], list[Prepared]] = {}
        for cell in cells:
            one = yield from self._prepare(cell)
            if isinstance(one, Tile):
                yield self._count(one)
            else:
                waiting.setdefault((one.clothes.base, cell.checkpoint), []).append(one)
        for group in waiting.values():
            for start in range(0, len(group), MOST_CELLS):
                yield from self._send(group[start : start + MOST_CELLS])

    def _prepare(self, cell: Cell) -> Generator[Progress, None, Prepared | Tile]:
        try:
            with closing(self.preparing.preparing(cell)) as work:
                while True:
                    try:
                        step = next(work)
                    except StopIteration as ended:
                        here: Prepared = ended.value
                        break
                    yield replace(step, done=self.done, total=self.total)
            _require_plain(here)
            one = self._as_there(here).prepare(cell)
        except CmpError as fault:
            return Tile(cell, "", fault=Fault(fault.message, fault.hint, fault.exit_code))
        for mode, key in one.keys.items():
            if (path := self.store.cell_path(key)).is_file():
                return Tile(cell, key, path, True, base=_base_of(one), mode=mode, drawn=drawn_as(one))
        return one

    def _as_there(self, one: Prepared) -> Preparing:
        """What works out the keys of cells that are drawn there; asks the other instance once for each base."""
        digest = one.clothes.base
        if digest not in self._there:
            with closing(self._ask({"base": digest})) as lines:
                told = next(lines, {})
            theirs, ours = told.get("circumstances"), self.studio.circumstances(one.clothes.folder)
            if not isinstance(theirs, dict) or set(theirs) != set(ours) or not all(isinstance(value, str) for value in theirs.values()):
                raise Refused(f"{self.address} does not say what its pictures depend on", "Give it the same version of this program.")
            if other := sorted(name for name in ours if name not in _OWN and theirs[name] != ours[name]):
                differ = ", ".join(f"{name} {theirs[name][:40]} there and {ours[name]} here" for name in other)
                raise Refused(f"{self.address} would draw other pictures: {differ}", "Give both machines the same versions.")
            there = _Told(self.studio.device_name, told=theirs)
            self._there[digest] = Preparing(self.preparing.make_ready, there, self.store, self.preparing.mode)
        return self._there[digest]

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, group: Sequence[Prepared]) -> Steps:
        """Has cells of one checkpoint drawn."""
        left = dict(enumerate(group))
        try:
            weights, alpha = lora_bytes(group[0].clothes.ready)
            body = {"base": group[0].clothes.base, "cells": [cell_json(one.cell) for one in group], "alpha": alpha}
            with closing(self._ask(body | {"weights": base64.b64encode(weights).decode()})) as lines:
                for told in lines:
                    if "error" in told:
                        raise as_error(str(told["error"])[:1000], str(told.get("hint", ""))[:1000], _code(told))
                    if isinstance(number := told.get("cell"), int):
                        if (one := left.pop(number, None)) is not None:
                            yield self._count(self._checked(one, told))
                    elif "what" in told:
                        yield Progress(self.done, self.total, f"{self.address}: {str(told['what'])[:200]}")
            if left:
                raise Unreadable(f"{self.address} ended before its cells did", "Try again; what came is kept.")
        except CmpError as fault:
            for one in left.values():
                yield self._count(_failed(one, fault))

    def _checked(self, one: Prepared, told: Mapping[str, Any]) -> Tile:
        """The tile of a picture, kept once everything that it says is what was asked for."""
        try:
            if isinstance(fault := told.get("fault"), dict):
                raise as_error(str(fault.get("error", "it was not drawn"))[:1000], str(fault.get("hint", ""))[:1000], _code(fault))
            image, record = self._picture(told)
            mode = str(told.get("mode"))
            proof = (record.get("key"), record.get("weights"), told.get("base"))
            if mode not in one.keys or proof != (one.keys[mode], one.clothes.weights, one.clothes.base) or told.get("key") != proof[0]:
                what = next((name for name, own, their in _pairs(one, mode, proof) if own != their), "mode")
                raise Refused(
                    f"{self.address} has drawn something else: its picture has another {what}", "Nothing of it is kept; draw it here."
                )
            if image.size != size_of(one):
                raise Refused(f"{self.address} has drawn {image.width} × {image.height} pixels", "Nothing of it is kept; draw it here.")
            return self._keep(one, mode, image, told.get("seconds"))
        except CmpError as fault:
            return _failed(one, fault)

    def _picture(self, told: Mapping[str, Any]) -> tuple[Image.Image, dict[str, Any]]:
        try:
            with Image.open(io.BytesIO(base64.b64decode(told["png"], validate=True)), formats=("PNG",)) as opened:
                check_size(opened, self.address)
                image = opened.convert("RGB")
                record = json.loads(opened.info["cmp"])
        except (KeyError, TypeError, ValueError, RecursionError, OSError, UnidentifiedImageError, Image.DecompressionBombError) as fault:
            raise Unreadable(f"{self.address} sent no picture with a record: {str(fault)[:200]}", "Draw it here.") from fault
        return image, record if isinstance(record, dict) else {}

    def _keep(self, one: Prepared, mode: str, image: Image.Image, seconds: object) -> Tile:
        path, base = self.store.cell_path(one.keys[mode]), one.clothes.ready.base
        assert base is not None
        took = float(seconds) if isinstance(seconds, (int, float)) and 0 <= seconds < 1e9 else None
        tile = Tile(one.cell, one.keys[mode], path, seconds=took, base=base.as_json(), mode=mode, drawn=drawn_as(one))
        record = tile.as_json() | {"weights": one.clothes.weights, "path": None, "drawn_at": self.address}
        try:
            save_png(image, path, to_infotext(one.cell, image.size, base.id, one.clothes.weights, __version__), record)
        except OSError as fault:
            raise Refused(f"cannot keep {path}: {why_not(fault)}", "Make room, or set CMP_HOME to another folder.") from fault
        return tile

    def _ask(self, body: Mapping[str, object]) -> Generator[dict[str, Any], None, None]:
        """The lines of an answer."""
        raw = json.dumps({"version": __version__, "mode": self.preparing.mode, **body}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        try:
            with build_opener(_Nowhere).open(Request(self.address + ROUTE, raw, headers), timeout=_PATIENCE) as answer:
                while line := answer.readline(_LONGEST_LINE):
                    told = json.loads(line)
                    if isinstance(told, dict):
                        yield told
        except HTTPError as fault:
            raise _refusal(fault, self.address) from fault
        except (OSError, HTTPException, ValueError, RecursionError) as fault:  # HTTPException: it broke off, or speaks no HTTP
            why = why_not(fault) if isinstance(fault, OSError) and fault.strerror else str(getattr(fault, "reason", fault))
            raise NotFound(f"cannot use {self.address}: {why[:200]}", "Check that it is served there, and its address.") from fault

    def _count(self, tile: Tile) -> Tile:
        self.done += 1
        return tile


class _Nowhere(HTTPRedirectHandler):
    """Follows nowhere: the token is for this address alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


def lora_bytes(ready: Ready) -> tuple[bytes, float]:
    """A LoRA as a safetensors file under diffusers' names, and its alpha."""
    assert ready.scale is not None
    header, names = ready.opened.header, ready.opened.weights.canonical
    described = {own: (header.tensors[stored].dtype, header.tensors[stored].shape) for stored, own in names.items()}
    ordered, head = head_of(described, {"format": "pt"})
    stored = {own: name for name, own in names.items()}
    found = b"".join(array.tobytes() for _, array in read_tensors(header, [stored[name] for name in ordered]))
    if len(head) + len(found) > MOST_BYTES:
        raise Refused(f"{ready.checkpoint.id} has {len(found):,} bytes of LoRA", f"At most {MOST_BYTES:,} are sent; draw it here.")
    return head + found, ready.scale.value * ready.scale.rank


def _require_plain(one: Prepared) -> None:
    """Raises Refused for what cannot be said with a LoRA's tensors and one alpha."""
    ready, weights = one.clothes.ready, one.clothes.ready.opened.weights
    why = (
        "it is more than LoRA pairs" if not weights.adapted or ready.whole or weights.embeddings or weights.bundled or one.words
        else "another LoRA is worn beside it" if one.cell.stack
        else "it is drawn with another VAE" if one.vae
        else "its base was rounded for training" if one.clothes.rounded
        else "its modules are not plain LoRA" if any(m.method != "lora" or not m.attachable or m.rows for m in weights.adapted)
        else "its modules differ in rank or scale" if len(weights.ranks) != 1 or ready.scale is None or ready.scale.modules
        else "its scale is not one of alpha by rank" if ready.scale.value * ready.scale.rank / ready.scale.rank != ready.scale.value
        else None
    )  # fmt: skip
    if why:
        name = one.cell.checkpoint.id if one.cell.checkpoint else "the base model's column"
        raise Refused(f"{name} cannot be drawn elsewhere: {why}", "Draw it here, or with --ray over a file system that all machines share.")


def _pairs(one: Prepared, mode: str, proof: Sequence[object]) -> Iterator[tuple[str, object, object]]:
    yield "digest of the weights", one.clothes.weights, proof[1]
    yield "base model", one.clothes.base, proof[2]
    yield "key", one.keys.get(mode), proof[0]


def _failed(one: Prepared, fault: CmpError) -> Tile:
    return Tile(one.cell, "", fault=Fault(fault.message, fault.hint, fault.exit_code), mode=one.mode)


def _base_of(one: Prepared) -> dict[str, object] | None:
    base = one.clothes.ready.base
    return base.as_json() if base else None


def _code(told: Mapping[str, Any]) -> int:
    return told["code"] if isinstance(told.get("code"), int) else Refused.exit_code


def _refusal(fault: HTTPError, address: str) -> CmpError:
    """What the other instance has against it, in its own words."""
    try:
        told = json.loads(fault.read(100_000))["detail"]
        error, hint, code = str(told["error"])[:1000], str(told["hint"])[:1000], _code(told)
    except (OSError, HTTPException, ValueError, RecursionError, KeyError, TypeError):
        error, hint, code = f"it answers {fault.code}", "Check that another instance of this program is served there.", Refused.exit_code
    if fault.code == 401:
        hint = "Put its token into CMP_AT_TOKEN."
    return as_error(f"{address}: {error}", hint, code)
