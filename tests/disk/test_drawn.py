"""Pictures of a run are found by what they tell of themselves, whoever drew them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cmp.core.runs import Checkpoint
from cmp.core.samples import Sample
from cmp.core.score_items import CELLS, Item, choose_pictures
from cmp.disk.drawn import Found, drawn_cells, trainers_pictures
from cmp.disk.store import Store
from cmp.pictures.files import save_png

SAMPLING: dict[str, Any] = {"steps": 12, "guidance": 7.5, "width": None, "height": None, "scheduler": "base", "clip_skip": 1, "vae": None}
WEIGHTS = {"w1": ["r@1"], "w2": ["r@2"]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def draw(store: Store, key: str, weights: str | None, **more: Any) -> Path:
    """A cell as a grid leaves it."""
    path = store.cell_path(key * 64)
    base = {"id": "b", "proof": "user", "source": "given"}
    told = {"prompt": "a shoe", "negative": "", "seed": 3, "strength": 1.0 if weights else None, "sampling": SAMPLING, "stack": []}
    record = told | {"mode": "exact", "base": base, "base_digest": "B", "weights": weights} | more
    save_png(Image.new("RGB", (8, 8)), path, "a shoe", record)
    return path


def found_in(store: Store) -> Found:
    return drawn_cells(store, WEIGHTS, "B", "b")


def test_pictures_are_of_the_weights_that_drew_them_and_no_others(store: Store) -> None:
    mine, other = draw(store, "a", "w1"), draw(store, "b", "w2")
    draw(store, "c", "w3")
    ((_, owners),) = found_in(store).pictures.items()
    (item,) = owners["r@1"]
    assert item == Item("a shoe", "seed 3") and owners["r@1"][item].path == mine and owners["r@2"][item].path == other


def test_the_base_models_pictures_belong_to_every_strength(store: Store) -> None:
    base = draw(store, "a", None)
    draw(store, "b", "w1")
    draw(store, "c", "w1", strength=0.5)
    found = found_in(store)
    assert len(found.pictures) == 2
    assert [[picture.path for picture in own.values()] for own in found.bases.values()] == [[base], [base]]


def test_what_another_lora_or_another_base_drew_is_not_the_checkpoints(store: Store) -> None:
    draw(store, "a", "w1", stack=[{"checkpoint": "other@1", "strength": 1.0}])
    draw(store, "b", "w1", base_digest="C")
    draw(store, "c", "w1", base={"id": "c"}, base_digest=None)
    assert not found_in(store).pictures
    older = draw(store, "d", "w1", base_digest=None)  # by its base's name alone
    ((_, owners),) = found_in(store).pictures.items()
    assert [picture.path for picture in owners["r@1"].values()] == [older]


@pytest.mark.parametrize(
    "change", [{"guidance": 4.0}, {"steps": 20}, {"width": 64, "height": 64}, {"scheduler": "DDIM"}, {"clip_skip": 2}, {"vae": "/v"}]
)
def test_every_setting_makes_another_way_of_drawing(change: dict[str, Any], store: Store) -> None:
    draw(store, "a", "w1")
    draw(store, "b", "w2", sampling=SAMPLING | change)
    found = found_in(store)
    assert len(found.pictures) == 2 and all(len(owners) == 1 for owners in found.pictures.values())
    assert choose_pictures(CELLS, found.pictures, ["r@1", "r@2"], found.bases).without  # type: ignore[union-attr]


def test_a_preview_gives_way_to_the_whole_picture(store: Store) -> None:
    small = SAMPLING | {"steps": 6, "width": 32, "height": 32}
    for key, weights, sampling in (("a", "w1", small), ("b", "w2", small), ("c", "w1", SAMPLING), ("d", "w2", SAMPLING)):
        draw(store, key, weights, sampling=sampling)
    found = found_in(store)
    shown = choose_pictures(CELLS, found.pictures, ["r@1", "r@2"], found.bases)
    assert shown and "steps 12" in shown.way.words and shown.way.options == "--steps 12 --guidance 7.5"


def test_an_exact_picture_goes_before_a_fast_one_and_both_are_one_item(store: Store) -> None:
    draw(store, "a", "w1", mode="fast")
    exact = draw(store, "f", "w1")
    ((_, owners),) = found_in(store).pictures.items()
    assert [picture.path for picture in owners["r@1"].values()] == [exact]


def test_a_damaged_cell_is_passed_over(store: Store) -> None:
    path = draw(store, "a", "w1")
    path.write_bytes(path.read_bytes()[:50])
    draw(store, "b", "w1", sampling=None)
    draw(store, "c", "w1", seed="3")
    assert not any(found_in(store).pictures.values())


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint("r", str(step), Path("r"), "kohya", "lora", step)


def test_the_trainers_pictures_belong_to_the_checkpoints_of_their_steps() -> None:
    one = Sample(Path("a.png"), 500, 0)
    samples = [one, replace(one, path=Path("b.png"), image=1), replace(one, path=Path("c.png"), step=0), replace(one, step=600)]
    found = trainers_pictures([*samples, replace(one, step=None, epoch=1)], [checkpoint(500), checkpoint(1000)], ["a shoe"])
    ((way, owners),) = found.pictures.items()
    assert {name: len(own) for name, own in owners.items()} == {"r@500": 2}
    assert [item.prompt for item in owners["r@500"]] == ["a shoe", "a shoe"]
    assert [picture.path.name for picture in found.bases[way].values()] == ["c.png"]


def test_a_prompt_that_nothing_tells_is_none() -> None:
    told = replace(Sample(Path("a.png"), 500, 1), text="by the file")
    found = trainers_pictures([Sample(Path("b.png"), 500, 2), told], [checkpoint(500)], ["first", "second"])
    assert [item.prompt for item in next(iter(found.pictures.values()))["r@500"]] == [None, "by the file"]
