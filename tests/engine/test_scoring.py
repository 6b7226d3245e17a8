"""Metrics of pictures, from real files to measured values: each held against what it is by definition."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmp.core.evidence import BASE
from cmp.core.image_scores import KINDS, cmmd_items, reference_set, unit
from cmp.core.measured import Measured, NotMeasured, evidence_of
from cmp.core.progress import run_through
from cmp.core.score_items import CELLS, Item, Picture, Shown, Way
from cmp.disk.embeddings import find_seeing_model
from cmp.disk.labelled import read_labelled
from cmp.disk.store import Store
from cmp.errors import BadInput, Refused, Unreadable
from tests.engine.seeing import draw_picture, tiny_clip, tiny_encoder
from tests.support import DEVICE

IDS = ("r@1", "r@2")
PROMPTS = ("a red shoe", "a cat on the mat")
ITEMS = tuple(Item(prompt, f"seed {seed}") for prompt in PROMPTS for seed in range(3))
CLOSE = 5e-3  # what half precision leaves of a cosine


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {"clip": tiny_clip(place / "clip"), "encoder": tiny_encoder(place / "dino")}


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """Six pictures of each of two checkpoints and of the base model; the second has drawn its first two alike."""
    pictures = {
        name: tuple(
            Picture(draw_picture(tmp_path / f"{n}" / f"{i}.png", 100 * n + (0 if n == 1 and i == 1 else i))) for i in range(len(ITEMS))
        )
        for n, name in enumerate((*IDS, BASE))
    }
    bases = pictures.pop(BASE)
    return Shown(CELLS, Way("12 steps"), ITEMS, pictures, bases)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    for i in range(5):
        draw_picture(tmp_path / "references" / f"{i}.png", 50 + i, (20, 20))
    return tmp_path / "references"


def scorer(metric: str, shown: Shown, model: Path, home: Path, images: Path | None = None, **more: Any) -> Any:
    from cmp.engine.device import choose_device
    from cmp.engine.embedding import Eye
    from cmp.engine.scoring import Scorer

    store = Store(home / "home")
    eye = Eye(find_seeing_model(str(model), store), choose_device(DEVICE), store, threading.Lock(), threading.Lock())
    labelled = read_labelled(images, store) if images else None
    return Scorer(metric, shown, eye, {name: f"w{name}" for name in IDS}, "B", labelled, **more)


def score(metric: str, shown: Shown, model: Path, home: Path, images: Path | None = None, **more: Any) -> dict[str, Measured]:
    found = run_through(scorer(metric, shown, model, home, images, **more).score())
    assert not [one for one in found if isinstance(one, NotMeasured)]
    return {one.checkpoint_id: one for one in found}


def seen(model: Path, pictures: list[Path]) -> np.ndarray:
    """What transformers itself sees."""
    import torch
    import transformers
    from PIL import Image

    pixels = transformers.AutoImageProcessor.from_pretrained(model, backend="pil")([Image.open(p) for p in pictures], return_tensors="pt")
    loaded = transformers.AutoModel.from_pretrained(model)
    with torch.inference_mode():
        if loaded.config.model_type == "clip":
            return unit(loaded.visual_projection(loaded.vision_model(**pixels).pooler_output).numpy())
        return unit(loaded(**pixels).last_hidden_state[:, 0].numpy())


def read(model: Path, texts: list[str]) -> np.ndarray:
    import torch
    from transformers import CLIPModel, CLIPTokenizer

    loaded, tokens = CLIPModel.from_pretrained(model), CLIPTokenizer.from_pretrained(model)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return unit(loaded.text_projection(loaded.text_model(**tokens).pooler_output).numpy())


def paths(shown: Shown, name: str) -> list[Path]:
    return [picture.path for picture in (shown.base or () if name == BASE else shown.pictures[name])]


def test_clip_and_preference_score_each_picture_with_its_own_prompt(shown: Shown, models: dict[str, Path], tmp_path: Path) -> None:
    found = score("clip", shown, models["clip"], tmp_path)
    texts = read(models["clip"], [str(item.prompt) for item in ITEMS])
    assert set(found) == {*IDS, BASE}
    for name, one in found.items():
        meant = 100 * (seen(models["clip"], paths(shown, name)) * texts).sum(axis=1)
        assert one.values[:, 0] == pytest.approx(meant, abs=100 * CLOSE) and one.items == tuple(item.name for item in ITEMS)
        assert not one.lower_is_better and one.weights == ("" if name == BASE else f"w{name}")
    preferred = score("preference", shown, models["clip"], tmp_path)
    assert preferred["r@1"].values == pytest.approx(found["r@1"].values / 100 * math.exp(2.5))


def test_shuffled_prompts_give_another_score(shown: Shown, models: dict[str, Path], tmp_path: Path) -> None:
    """The same pictures, said to be of each other's prompts."""
    others = replace(shown, items=tuple(replace(item, prompt=PROMPTS[1 - PROMPTS.index(str(item.prompt))]) for item in ITEMS))
    found, shuffled = (score("clip", one, models["clip"], tmp_path)["r@1"] for one in (shown, others))
    assert not np.allclose(found.values, shuffled.values, atol=0.5) and found.setup != shuffled.setup


def test_cmmd_nearest_and_identity_are_measured_against_the_images_given(
    shown: Shown, references: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    files = sorted(references.iterdir())
    theirs = {name: seen(model, files) for name, model in models.items()}
    cmmd = score("cmmd", shown, models["clip"], tmp_path, references)["r@1"]
    own = seen(models["clip"], paths(shown, "r@1"))
    assert cmmd.values[:, 0] == pytest.approx(cmmd_items(own, reference_set(theirs["clip"])), rel=0.05, abs=0.05) and cmmd.lower_is_better
    assert any("with references drawn anew" in text for text in cmmd.told) and any("5 images" in text for text in cmmd.told)
    own = seen(models["encoder"], paths(shown, "r@1"))
    nearest = score("nearest", shown, models["encoder"], tmp_path, references)["r@1"]
    assert nearest.values[:, 0] == pytest.approx((own @ theirs["encoder"].T).max(axis=1), abs=CLOSE)
    identity = score("identity", shown, models["encoder"], tmp_path, references)["r@1"]
    assert identity.values[:, 0] == pytest.approx((own @ theirs["encoder"].T).mean(axis=1), abs=CLOSE)


def test_a_copy_of_a_training_image_is_as_near_as_can_be_and_named(shown: Shown, models: dict[str, Path], tmp_path: Path) -> None:
    copies = tmp_path / "trained"
    copies.mkdir()
    for number, place in ((7, 4), (8, 2)):
        (copies / f"{number}.png").write_bytes(shown.pictures["r@2"][place].path.read_bytes())
    found = score("nearest", shown, models["encoder"], tmp_path, copies)
    assert found["r@2"].values[4, 0] == pytest.approx(1, abs=CLOSE) == found["r@2"].values[2, 0]
    assert any((text.startswith("step 2: nearest is") and "8.png" in text) or "7.png" in text for text in found["r@2"].told)
    assert found["r@1"].values.max() < found["r@2"].values.max()


def test_near_duplicates_among_seeds_are_counted_and_shown(shown: Shown, models: dict[str, Path], tmp_path: Path) -> None:
    found = score("diversity", shown, models["encoder"], tmp_path)
    own = seen(models["encoder"], paths(shown, "r@1"))[:3]
    assert found["r@1"].items == PROMPTS[::-1] or found["r@1"].items == PROMPTS
    place = found["r@1"].items.index(PROMPTS[0])
    pairs = [own[i] @ own[j] for i in range(3) for j in range(i)]
    assert found["r@1"].values[place, 0] == pytest.approx(1 - np.mean(pairs), abs=CLOSE)
    (told,) = (text for text in found["r@2"].told if "near-duplicate" in text)
    assert "a red shoe · seed 0 and seed 1 (1.000)" in told and "6 pairs" in told


def test_leak_is_the_distance_to_the_base_models_picture_where_the_subject_is_not_named(
    shown: Shown, models: dict[str, Path], tmp_path: Path
) -> None:
    found = score("leak", shown, models["encoder"], tmp_path, words=("red shoe",))
    assert set(found) == set(IDS), "the base model does not differ from itself"
    own, base = (seen(models["encoder"], paths(shown, name)[3:]) for name in ("r@1", BASE))
    assert found["r@1"].values[:, 0] == pytest.approx(1 - (own * base).sum(axis=1), abs=CLOSE)
    assert any("'a cat on the mat'" in text and "red shoe" in text for text in found["r@1"].told)


def test_what_cannot_be_measured_is_refused_with_what_to_do(
    shown: Shown, references: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="every prompt names shoe or cat"):
        score("leak", shown, models["encoder"], tmp_path, words=("shoe", "cat"))
    with pytest.raises(Refused, match="base model's pictures") as raised:
        score("leak", replace(shown, bases=(None,) * 6), models["encoder"], tmp_path, words=("shoe",))
    assert "--base-column" in raised.value.hint and "a cat on the mat" in raised.value.hint
    with pytest.raises(BadInput, match="CMMD of 2 pictures"):
        score("cmmd", shown.only([0, 1]), models["clip"], tmp_path, references)
    with pytest.raises(BadInput, match="two seeds"):
        score("diversity", shown.only([0, 3]), models["encoder"], tmp_path)
    bare = replace(shown, items=tuple(Item(None, f"prompt 0, picture {i}") for i in range(6)))
    with pytest.raises(Refused, match="prompts"):
        score("clip", bare, models["clip"], tmp_path)
    for file in list(references.iterdir())[1:]:
        file.unlink()
    with pytest.raises(BadInput, match="1 reference image"):
        score("cmmd", shown, models["clip"], tmp_path, references)


def test_a_damaged_picture_costs_its_checkpoint_and_no_other(shown: Shown, models: dict[str, Path], tmp_path: Path) -> None:
    path = shown.pictures["r@1"][2].path
    path.write_bytes(path.read_bytes()[:50])
    found = run_through(scorer("clip", shown, models["clip"], tmp_path).score())
    (lost,) = (one for one in found if isinstance(one, NotMeasured))
    assert lost.checkpoint_id == "r@1" and isinstance(lost.error, Unreadable) and str(path) in lost.error.message
    assert {one.checkpoint_id for one in found if isinstance(one, Measured)} == {"r@2", BASE}


def test_a_damaged_reference_image_stands_against_all(shown: Shown, references: Path, models: dict[str, Path], tmp_path: Path) -> None:
    (references / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    with pytest.raises(Unreadable, match=r"bad\.png"):
        score("identity", shown, models["encoder"], tmp_path, references)


def test_other_references_items_or_models_are_another_setup(
    shown: Shown, references: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    def setup(metric: str = "identity", one: Shown = shown, model: str = "encoder") -> str:
        return str(score(metric, one, models[model], tmp_path, references)["r@1"].setup)

    before = setup()
    assert before == setup()
    assert (
        len({before, setup("nearest"), setup(one=shown.only(range(5))), setup(model="clip"), setup(one=replace(shown, way=Way("9")))}) == 5
    )
    draw_picture(references / "more.png", 99)
    assert setup() != before
    two = score("diversity", shown.only([0, 1, 3, 4]), models["encoder"], tmp_path)["r@1"]
    assert two.items == score("diversity", shown, models["encoder"], tmp_path)["r@1"].items
    assert two.setup != score("diversity", shown, models["encoder"], tmp_path)["r@1"].setup, "of fewer seeds"


def test_evidence_goes_by_the_metrics_direction_and_its_pairs(shown: Shown, models: dict[str, Path], tmp_path: Path) -> None:
    for metric in ("clip", "leak"):
        found = score(metric, shown, models["clip"], tmp_path, words=("dog",))
        evidence = evidence_of(found.values(), IDS)
        assert evidence and evidence.decides and evidence.lower_is_better == KINDS[metric].lower_is_better
        assert evidence.values[0] == pytest.approx(found["r@1"].values.mean()) and evidence.counts == (6, 6)
