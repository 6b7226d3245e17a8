"""What models see, held against plain calls of transformers; what is kept; and what is declined."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmp.core.image_scores import unit
from cmp.core.progress import run_through
from cmp.core.samples import Within
from cmp.core.score_items import Picture
from cmp.disk.embeddings import find_seeing_model
from cmp.disk.store import Store
from cmp.errors import CmpError, NotFound, Refused, Unreadable
from tests.engine.seeing import draw_picture, tiny_clip, tiny_encoder
from tests.support import DEVICE

TEXTS = ["a red shoe", "a cat on a mat"]
HALF = 1e-3  # what half precision leaves of the length 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Picture, ...]:
    folder = tmp_path_factory.mktemp("pictures")
    return tuple(Picture(draw_picture(folder / f"{i}.png", i, (20 + i, 24))) for i in range(11))


def eye_of(model: Path | str, home: Path) -> Any:
    from cmp.engine.device import choose_device
    from cmp.engine.embedding import Eye

    store = Store(home)
    found = find_seeing_model(str(model), store)
    return Eye(found, choose_device(DEVICE), store, threading.Lock(), threading.Lock())


def see(model: Path | str, home: Path, pictures: tuple[Picture, ...]) -> np.ndarray:
    rows: np.ndarray = run_through(eye_of(model, home).look(pictures, "pictures"))
    return rows


def images(pictures: tuple[Picture, ...]) -> list[Any]:
    from PIL import Image

    return [Image.open(picture.path).convert("RGB") for picture in pictures]


def test_clip_sees_what_a_plain_call_of_transformers_sees(clip: Path, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(clip)
    tokens = CLIPTokenizer.from_pretrained(clip)(TEXTS, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(images(pictures), return_tensors="pt")
    with torch.inference_mode():
        answer = model(**tokens, **pixels)
    eye = eye_of(clip, tmp_path)
    seen, read = run_through(eye.look(pictures, "pictures")), run_through(eye.read(TEXTS))
    assert seen == pytest.approx(unit(answer.image_embeds.numpy()), abs=HALF)
    assert read == pytest.approx(unit(answer.text_embeds.numpy()), abs=HALF)
    assert np.exp(eye.logit_scale()) * seen @ read.T == pytest.approx(answer.logits_per_image.numpy(), abs=0.05)


@pytest.mark.parametrize("kind", ["Dinov2", "ViT", "SiglipVision"])
def test_an_encoder_sees_what_a_plain_call_of_transformers_sees(kind: str, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    import torch
    import transformers

    folder = tiny_encoder(tmp_path / kind, kind)
    pixels = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")(images(pictures), return_tensors="pt")
    with torch.inference_mode():
        answer = getattr(transformers, f"{kind}Model").from_pretrained(folder)(**pixels)
    meant = answer.pooler_output if kind == "SiglipVision" else answer.last_hidden_state[:, 0]
    assert see(folder, tmp_path / "home", pictures) == pytest.approx(unit(meant.numpy()), abs=HALF)


def test_what_was_seen_is_the_same_when_it_is_asked_for_again(clip: Path, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    first = see(clip, tmp_path, pictures)
    again = eye_of(clip, tmp_path)
    assert np.array_equal(run_through(again.look(pictures, "pictures")), first)
    assert again._model is None  # and nothing had to be loaded for it
    assert all(map(again.knows, pictures)) and again.pace is not None
    (kept,) = {file.stat().st_size for file in (tmp_path / "embeddings").rglob("*.f16")}
    assert kept == 12 * 2  # half precision and nothing else


def test_a_picture_comes_in_its_own_place_and_may_come_twice(clip: Path, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    see(clip, tmp_path, pictures[4:6])
    found = see(clip, tmp_path, (*pictures[::-1], pictures[3]))
    assert found[:-1] == pytest.approx(see(clip, tmp_path / "other", pictures)[::-1], abs=HALF)
    assert np.array_equal(found[-1], found[7])


def test_another_model_or_another_picture_is_looked_at_anew(clip: Path, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    first = see(clip, tmp_path, pictures[:1])
    changed = Picture(tmp_path / "0.png")
    shutil.copy(pictures[1].path, changed.path)
    assert not np.array_equal(see(tiny_clip(tmp_path / "clip2", seed=1), tmp_path, pictures[:1]), first)
    before = see(clip, tmp_path, (changed,))
    draw_picture(changed.path, 99)
    assert not np.array_equal(see(clip, tmp_path, (changed,)), before)


@pytest.mark.parametrize("damage", [b"", b"\0" * 24, b"\xff" * 24, b"odd"])
def test_a_damaged_row_is_computed_again(damage: bytes, clip: Path, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    first = see(clip, tmp_path, pictures[:1])
    (file,) = (tmp_path / "embeddings").rglob("*.f16")
    file.write_bytes(damage)
    assert np.array_equal(see(clip, tmp_path, pictures[:1]), first)


def test_where_nothing_can_be_kept_pictures_are_seen_all_the_same(clip: Path, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    (tmp_path / "embeddings").write_text("no folder")
    assert np.array_equal(see(clip, tmp_path, pictures[:2]), see(clip, tmp_path / "other", pictures[:2]))


def test_weights_of_torchs_older_format_are_read_and_not_unpickled(pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    plain = see(tiny_clip(tmp_path / "plain"), tmp_path / "home", pictures[:2])
    older = tiny_clip(tmp_path / "older", pickled=True)
    assert not list(older.glob("*.safetensors"))
    assert see(older, tmp_path / "home", pictures[:2]) == pytest.approx(plain, abs=HALF)
    assert eye_of(older, tmp_path).logit_scale() == pytest.approx(2.5)


def test_a_picture_within_a_log_is_cut_out_of_those_beside_it(clip: Path, tmp_path: Path) -> None:
    from PIL import Image

    whole = Image.new("RGB", (32, 16))
    parts = [draw_picture(tmp_path / f"{i}.png", i) for i in range(2)]
    for i, part in enumerate(parts):
        whole.paste(Image.open(part), (16 * i, 0))
    whole.save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "log").write_bytes(b"before" + content + b"after")
    tiles = tuple(Picture(tmp_path / "log", Within(6, len(content), (i, 2, 1))) for i in range(2))
    assert see(clip, tmp_path, tiles) == pytest.approx(see(clip, tmp_path, tuple(map(Picture, parts))), abs=HALF)


def test_a_prompt_that_is_too_long_is_told(clip: Path, tmp_path: Path) -> None:
    eye = eye_of(clip, tmp_path)
    long = "shoe " * 40
    found = run_through(eye.read(["a shoe", long, long + "and a cat"]))
    assert eye.cut == (long, long + "and a cat")
    assert np.array_equal(found[1], found[2])  # what is behind the end is not read


def test_a_prompt_reads_the_same_whatever_stands_beside_it(clip: Path, tmp_path: Path) -> None:
    alone = run_through(eye_of(clip, tmp_path / "a").read(["a shoe"]))
    beside = run_through(eye_of(clip, tmp_path / "b").read(["a much longer prompt of a cat", "a shoe"]))
    assert beside[1] == pytest.approx(alone[0], abs=HALF)


def fault_of(model: Path | str, home: Path, pictures: tuple[Picture, ...]) -> CmpError:
    with pytest.raises(CmpError) as raised:
        see(model, home, pictures)
    return raised.value


def test_a_model_that_is_not_here_is_quoted(tmp_path: Path) -> None:
    fault = fault_of("nobody/no-such-model", tmp_path, ())
    assert isinstance(fault, NotFound) and "'nobody/no-such-model'" in fault.message


def test_a_folder_that_is_no_such_model_is_declined(base_folder: Path, tmp_path: Path) -> None:
    assert isinstance(fault := fault_of(base_folder, tmp_path, ()), Unreadable) and str(base_folder) in fault.message
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert isinstance(fault_of(tmp_path / "bert", tmp_path, ()), Unreadable)  # it has no weights
    shutil.copy(tiny_encoder(tmp_path / "dino") / "model.safetensors", tmp_path / "bert")
    assert isinstance(fault := fault_of(tmp_path / "bert", tmp_path, ()), Refused) and "'bert'" in fault.message


def test_an_encoder_reads_no_prompts(tmp_path: Path) -> None:
    eye = eye_of(tiny_encoder(tmp_path / "dino"), tmp_path)
    with pytest.raises(Refused, match="reads no prompts"):
        run_through(eye.read(["a shoe"]))


def test_a_model_with_weights_missing_is_not_filled_with_random_ones(pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tiny_clip(tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert "visual_projection.weight" in (fault := fault_of(folder, tmp_path, pictures[:1])).message and isinstance(fault, Unreadable)


def test_a_model_without_its_tokenizer_reads_nothing(tmp_path: Path) -> None:
    """transformers would make one that knows no words."""
    folder = tiny_clip(tmp_path / "clip")
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(Unreadable, match=r"tokenizer\.json"):
        run_through(eye_of(folder, tmp_path).read(["a shoe"]))


def test_a_tokenizer_of_more_words_than_the_model_knows_is_refused(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    folder = tiny_clip(tmp_path / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<sks>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(Refused, match="530 words"):
        run_through(eye_of(folder, tmp_path).read(["a shoe"]))


def test_how_pictures_are_made_ready_is_not_guessed(pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "clip")
    (folder / "preprocessor_config.json").unlink()
    fault = fault_of(folder, tmp_path, pictures[:1])
    assert isinstance(fault, Unreadable) and "preprocessor_config.json" in fault.message


def test_pictures_of_another_size_than_the_models_are_told(pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    from transformers import CLIPImageProcessorPil

    folder = tiny_clip(tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    fault = fault_of(folder, tmp_path, pictures[:1])
    assert isinstance(fault, Unreadable) and "another model" in fault.hint


OLDER = {
    "clip": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 16, "crop_size": 16, "do_center_crop": True, "resample": 3},
    "ViT": {"feature_extractor_type": "ViTFeatureExtractor", "size": 16, "resample": 2},
    "Dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 18}, "crop_size": {"height": 16, "width": 16}},
}


@pytest.mark.parametrize("kind", OLDER)
def test_settings_as_models_on_the_hub_have_them_are_understood(kind: str, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "m") if kind == "clip" else tiny_encoder(tmp_path / "m", kind)
    usual = {"do_resize": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(usual | OLDER[kind]))
    assert np.isfinite(see(folder, tmp_path, pictures[:3])).all()


def test_a_corrupt_picture_is_named(clip: Path, pictures: tuple[Picture, ...], tmp_path: Path) -> None:
    bad = tmp_path / "half.png"
    bad.write_bytes(pictures[0].path.read_bytes()[:60])
    assert isinstance(fault := fault_of(clip, tmp_path, (pictures[0], Picture(bad))), Unreadable) and str(bad) in fault.message
