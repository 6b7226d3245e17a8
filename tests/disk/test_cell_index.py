"""The index of cells: pictures are opened once, what came and what went is noticed, and what tells nothing harms nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from PIL import Image

from cmp.core.votes import kept_cell
from cmp.disk.cell_index import CellIndex
from cmp.disk.store import Store
from cmp.pictures.files import save_png

TOLD = {
    "prompt": "a shoe", "negative": "", "seed": 1, "strength": 1.0, "stack": [], "base": {"id": "b"},
    "sampling": {"steps": 4, "guidance": 7.5, "width": None, "height": None, "scheduler": "base", "clip_skip": 1, "vae": None},
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def drawn(store: Store, number: int, weights: str, **more: object) -> Path:
    path = store.cell_path(f"{number:064x}")
    save_png(Image.new("RGB", (8, 8)), path, "", TOLD | {"weights": weights, **more})
    return path


def settled(path: Path) -> None:
    """As if nothing had changed in its folder for a minute."""
    past = time.time() - 60
    os.utime(path.parent, (past, past))


def found(store: Store, *weights: str) -> list[int]:
    return [int(cell.key, 16) for cell in CellIndex(store).of_weights(weights)]


def test_cells_are_found_by_their_weights_and_tell_what_they_were_drawn_with(store: Store) -> None:
    drawn(store, 1, "w")
    drawn(store, 2, "v")
    (cell,) = CellIndex(store).of_weights(["w"])
    assert cell.weights == "w" and cell.told == TOLD and found(store, "w", "v") == [1, 2] and found(store, "x") == [] == found(store)


def test_a_picture_is_not_opened_again_and_what_came_and_went_is_noticed(store: Store) -> None:
    first = drawn(store, 1, "w")
    settled(first)
    assert found(store, "w") == [1]
    first.write_bytes(b"changed in place, which says nothing to its folder")
    assert found(store, "w") == [1]
    drawn(store, 2, "w")
    assert found(store, "w") == [1, 2]
    first.unlink()
    assert found(store, "w") == [2]


def test_what_comes_within_the_clocks_tick_of_a_look_is_noticed_too(store: Store) -> None:
    first = drawn(store, 1, "w")
    assert found(store, "w") == [1]
    second = drawn(store, 2, "w")
    os.utime(second.parent, ns=(second.parent.stat().st_atime_ns, first.stat().st_mtime_ns))
    assert found(store, "w") == [1, 2]


def test_a_store_that_was_emptied_has_no_cells(store: Store) -> None:
    path = drawn(store, 1, "w")
    settled(path)
    assert found(store, "w") == [1]
    path.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()
    assert found(store, "w") == []


def test_a_picture_that_tells_nothing_is_passed_over(store: Store) -> None:
    good = drawn(store, 1, "w")
    (good.parent / f"{5:064x}.png").write_bytes(b"no picture")
    drawn(store, 2, "w")
    assert found(store, "w", "") == [1, 2, 5] and found(store, "w") == [1, 2]


@pytest.mark.parametrize(
    "told",
    [
        {"as_preview": True},
        {"stack": [{"checkpoint": "r@1", "strength": 1.0}]},
        {"sampling": {**TOLD["sampling"], "vae": "/vae"}},  # type: ignore[dict-item]
        {"sampling": {**TOLD["sampling"], "steps": "four"}},  # type: ignore[dict-item]
        {"sampling": {**TOLD["sampling"], "of a later version": 1}},  # type: ignore[dict-item]
        {"sampling": None},
        {"seed": "1"},
        {"prompt": None},
        {"base": "b"},
    ],
)
def test_previews_and_what_may_have_changed_are_not_voted_on(told: dict[str, object]) -> None:
    assert kept_cell("k", "r@1", TOLD) is not None
    assert kept_cell("k", "r@1", TOLD | told) is None
