"""The loss of saved checkpoints: that of diffusers' plain computation, proven to be of the weights it stands under, and kept by these."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

from cmp.core.draws import Draws, timesteps
from cmp.core.evidence import BASE
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.measured import LOSS, TRAINING_LOSS, Measured, MeasureSpec, NotMeasured
from cmp.core.progress import Progress
from cmp.core.runs import Setting
from cmp.disk.ready import Answers
from cmp.engine.studio import Studio
from cmp.errors import BadInput, CmpError, NotFound, Refused, Unreadable
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.support import DEVICE, PART, unpack

from .making import UNET_FILE, WEIGHTS, adapter, unet_adapter, write_step

pytestmark = pytest.mark.model

DATA = Path(__file__).parents[1] / "data" / "corpus"
NANO = DATA / "bases" / "sd_nano"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CAPTIONS = ("a red shoe", "a blue shoe on the beach", "", "a star")
DRAWS = Draws(4)


def picture(file: Path, seed: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> Path:
    """A smooth picture of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode).save(file)
    return file


def folder(place: Path, seeds: int | range = 4) -> Path:
    """Pictures with captions, as diffusers' scripts take them."""
    numbers = range(seeds) if isinstance(seeds, int) else seeds
    for number in numbers:
        picture(place / f"{number}.png", number)
    rows = [{"file_name": f"{n}.png", "text": CAPTIONS[n % 4]} for n in numbers]
    (place / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("measured")
    unpack(DATA / "small.tar.xz", place)
    unpack(DATA / "sd3_tiny.tar.xz", place / "bases")
    return place / "bases"


def bench_over(tmp_path: Path, base: Path, *made: Mapping[str, np.ndarray]) -> Workbench:
    for number, tensors in enumerate(made, start=1):
        write_step(tmp_path / "outputs" / "run", number, tensors)
    return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (base.parent,), device=DEVICE))


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A run of three steps on the smallest base, and `held_out` beside it."""
    base = Path(shutil.copytree(NANO, tmp_path / "bases" / "sd_nano"))
    folder(tmp_path / "held_out")
    return bench_over(tmp_path, base, *(unet_adapter(base, 4, step) for step in (1, 2, 3)))


def measure(bench: Workbench, place: Path | None, base: str = "sd_nano", **more: Any) -> dict[tuple[str, str], Measured]:
    """What was measured, by metric and the checkpoint's key."""
    found = items(bench, place, base, **more)
    assert not [item.error for item in found if isinstance(item, NotMeasured)]
    return {(one.metric, one.checkpoint_id.rpartition("@")[2]): one for one in found if isinstance(one, Measured)}


def items(bench: Workbench, place: Path | None, base: str = "sd_nano", **more: Any) -> list[Measured | NotMeasured]:
    run, _ = bench.find("run")
    spec = MeasureSpec(held_out=place, **({"draws": DRAWS.draws} | more))
    return [item for item in bench.measure(run, spec, Answers(base=base)) if not isinstance(item, Progress)]


# -- the values ------------------------------------------------------------------------------------------------------------


def plain(base: Path, file: Path | None, place: Path) -> np.ndarray:
    """(images, bands) by diffusers alone, one prediction at a time; the formulas are those of the papers, written out."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(base, local_files_only=True)
    if file and file.is_dir():
        pipe.unet = type(pipe.unet).from_pretrained(file, local_files_only=True)
    elif file:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    pipe.set_progress_bar_config(disable=True)
    config = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
    values = np.empty((4, DRAWS.bands, DRAWS.each))
    for number, row in enumerate(map(json.loads, (place / "metadata.jsonl").read_text().splitlines())):
        image = place / row["file_name"]
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        pixels = torch.from_numpy(np.asarray(Image.open(image)).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            mean = pipe.vae.encode(pixels).latent_dist.mean
            x = (mean - (pipe.vae.config.get("shift_factor") or 0)) * pipe.vae.config.scaling_factor
            for band, draw in np.ndindex(DRAWS.bands, DRAWS.each):
                noise = torch.from_numpy(DRAWS.noise(digest, band, draw, x.shape[1:]))[None]
                values[number, band, draw] = one_loss(pipe, config, x, noise, DRAWS.places(digest)[band, draw], row["text"])
    return values.mean(axis=2)


def one_loss(pipe: Any, config: Mapping[str, Any], x: torch.Tensor, noise: torch.Tensor, place: float, text: str) -> float:
    words = {"prompt": text, "device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    if type(pipe).__name__ == "StableDiffusion3Pipeline":
        embeds, _, pooled, _ = pipe.encode_prompt(**words, prompt_2=None, prompt_3=None)
        noisy = (1 - place) * x + place * noise
        at = torch.tensor([place * config["num_train_timesteps"]], dtype=torch.float32)
        guess = pipe.transformer(noisy.float(), timestep=at, encoder_hidden_states=embeds, pooled_projections=pooled).sample
        return float(((guess - (noise - x)) ** 2).mean())
    t = int(timesteps(np.array([place]), config["num_train_timesteps"])[0])
    betas = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, config["num_train_timesteps"]) ** 2
    kept = float(np.cumprod(1 - betas)[t])
    noisy = kept**0.5 * x + (1 - kept) ** 0.5 * noise
    target = noise if config["prediction_type"] == "epsilon" else kept**0.5 * noise - (1 - kept) ** 0.5 * x
    more: dict[str, Any] = {}
    if type(pipe).__name__ == "StableDiffusionXLPipeline":
        embeds, _, pooled, _ = pipe.encode_prompt(**words)
        more["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    else:
        embeds, _ = pipe.encode_prompt(**words)
    return float(((pipe.unet(noisy, t, embeds, **more).sample - target) ** 2).mean())


FAMILIES: Mapping[str, tuple[str, Mapping[str, tuple[str, ...]], str]] = {
    "epsilon": ("sd_nano", {"unet": (*ATTENTION, "conv1"), "text_encoder": ("q_proj",)}, "epsilon"),
    "v_prediction": ("sd_nano", {"unet": ATTENTION}, "v_prediction"),
    "two text encoders": ("sdxl_tiny", {"unet": ATTENTION, "text_encoder_2": ("k_proj",)}, "epsilon"),
    "flow matching": ("sd3_tiny", {"transformer": ATTENTION}, ""),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_diffusers_plain_computation(bases: Path, tmp_path: Path, family: str) -> None:
    name, adapted, prediction = FAMILIES[family]
    base = Path(shutil.copytree(bases / name, tmp_path / "bases" / name))
    if prediction:
        settings = base / "scheduler" / "scheduler_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"prediction_type": prediction}))
    made: dict[str, np.ndarray] = {}
    for number, (component, ends) in enumerate(adapted.items()):
        made |= adapter(base, component, 4, number, ends)
    bench, place = bench_over(tmp_path, base, made), folder(tmp_path / "held_out")
    found = measure(bench, place, str(base))
    file = tmp_path / "outputs" / "run" / "checkpoint-1" / WEIGHTS
    for key, weights in (("base", None), ("1", file)):
        values = found[LOSS, key].values
        assert values.shape == (4, 4) and np.allclose(values, plain(base, weights, place), rtol=PART), key
    assert not np.allclose(found[LOSS, "base"].values, found[LOSS, "1"].values, rtol=1e-3)


def test_a_full_fine_tune_has_the_loss_of_its_own_unet(bench: Workbench, tmp_path: Path) -> None:
    base, whole = tmp_path / "bases" / "sd_nano", tmp_path / "outputs" / "run" / "checkpoint-9" / "unet"
    shutil.copytree(base / "unet", whole)
    file = whole / UNET_FILE.rpartition("/")[2]
    save_file({name: values * np.float32(1.05) for name, values in load_file(file).items()}, file, {"format": "pt"})
    found = measure(Workbench(bench.settings), tmp_path / "held_out", training=folder(tmp_path / "train", range(4, 8)))
    assert np.allclose(found[LOSS, "9"].values, plain(base, whole, tmp_path / "held_out"), rtol=PART)
    assert np.allclose(found[LOSS, "base"].values, plain(base, None, tmp_path / "held_out"), rtol=PART)
    assert np.allclose(
        found[TRAINING_LOSS, "1"].values,
        plain(base, tmp_path / "outputs" / "run" / "checkpoint-1" / WEIGHTS, tmp_path / "train"),
        rtol=PART,
    )


def test_a_run_that_says_that_it_predicts_something_else_is_refused(bench: Workbench, tmp_path: Path) -> None:
    run, _ = bench.find("run")
    settings = {"v_parameterization": Setting(True, "config.toml")}
    with pytest.raises(Refused, match="'v_prediction', and its base's scheduler says 'epsilon'"):
        list(bench.measure(replace(run, settings=settings), MeasureSpec(held_out=tmp_path / "held_out"), Answers(base="sd_nano")))


def test_a_family_that_is_asked_otherwise_is_refused_by_name(bases: Path, tmp_path: Path) -> None:
    made = adapter(bases / "flux_tiny", "transformer", 4, 0, ATTENTION)
    bench = bench_over(tmp_path, bases / "flux_tiny", made)
    with pytest.raises(Refused, match="FluxPipeline"):
        measure(bench, folder(tmp_path / "held_out"), "flux_tiny")


@pytest.mark.parametrize(
    ("change", "told"),
    [({"prediction_type": "x0"}, "x0"), ({"_class_name": "EDMEulerScheduler", "beta_schedule": None}, "EDMEulerScheduler")],
)
def test_a_scheduler_that_does_not_say_how_it_was_trained_is_refused(
    bench: Workbench, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    settings = tmp_path / "bases" / "sd_nano" / "scheduler" / "scheduler_config.json"
    left = {name: value for name, value in (json.loads(settings.read_text()) | change).items() if value is not None}
    settings.write_text(json.dumps(left))
    index = tmp_path / "bases" / "sd_nano" / "model_index.json"
    if "_class_name" in change:
        index.write_text(json.dumps(json.loads(index.read_text()) | {"scheduler": ["diffusers", change["_class_name"]]}))
    with pytest.raises(CmpError, match=told):
        measure(bench, tmp_path / "held_out")


def test_the_same_file_measured_twice_alone_or_in_company_has_the_same_bits(bench: Workbench, tmp_path: Path) -> None:
    together = measure(bench, tmp_path / "held_out")
    for number, home in enumerate(("alone", "again")):
        other = Workbench(replace(bench.settings, home=tmp_path / home))
        run, _ = other.find("run")
        alone = measure(other, tmp_path / "held_out", checkpoints=run.checkpoints[1:2] if number == 0 else run.checkpoints[::-1])
        assert alone[LOSS, "2"].values.tobytes() == together[LOSS, "2"].values.tobytes() and not alone[LOSS, "2"].reused
        assert alone[LOSS, "base"].values.tobytes() == together[LOSS, "base"].values.tobytes()


def test_more_images_change_the_draws_of_none_that_was_there(bench: Workbench, tmp_path: Path) -> None:
    few, many = measure(bench, tmp_path / "held_out"), measure(bench, folder(tmp_path / "more", 6))
    by_name = dict(zip(many[LOSS, "1"].items, many[LOSS, "1"].values, strict=True))
    for name, values in zip(few[LOSS, "1"].items, few[LOSS, "1"].values, strict=True):
        assert np.allclose(values, by_name[name], rtol=PART)
    assert few[LOSS, "1"].setup != many[LOSS, "1"].setup


# -- what is kept ----------------------------------------------------------------------------------------------------------


def test_what_is_written_anew_while_it_is_measured_has_no_loss_of_what_it_was(bench: Workbench, tmp_path: Path) -> None:
    run, checkpoint = bench.find("run@2")
    assert checkpoint is not None and checkpoint.file is not None
    spec = MeasureSpec((LOSS,), (checkpoint,), tmp_path / "held_out", folder(tmp_path / "train", range(4, 8)), DRAWS.draws)
    found, written = list[Measured](), False
    for step in bench.measure(run, spec, Answers(base="sd_nano")):
        if isinstance(step, Progress) and step.what.startswith("run@2: measuring") and not written:
            shutil.copyfile(tmp_path / "outputs" / "run" / "checkpoint-3" / WEIGHTS, checkpoint.file)
            written = True
        found += [step] if isinstance(step, Measured) else []
    old = next(one for one in found if one.checkpoint_id == "run@2")
    assert written and "written anew" in old.told[-1]
    assert {one.checkpoint_id for known in bench.measurements(run).values() for one in known} == {BASE}
    anew = [one for one in items(Workbench(bench.settings), tmp_path / "held_out", checkpoints=(checkpoint,)) if isinstance(one, Measured)]
    assert anew[-1].weights != old.weights and not anew[-1].reused


def test_what_was_measured_is_not_measured_again_and_a_new_checkpoint_costs_itself(
    bench: Workbench, tmp_path: Path, monkeypatch: Any
) -> None:
    first = measure(bench, tmp_path / "held_out")
    write_step(tmp_path / "outputs" / "run", 4, unet_adapter(tmp_path / "bases" / "sd_nano", 4, 4))
    again = measure(Workbench(bench.settings), tmp_path / "held_out")
    assert [key for (_, key), one in again.items() if not one.reused] == ["4"] and len(first) == 4
    assert all(again[key].values.tobytes() == one.values.tobytes() for key, one in first.items())
    monkeypatch.setattr(Studio, "pipeline", None)
    assert all(one.reused for one in measure(Workbench(bench.settings), tmp_path / "held_out").values())  # no model is loaded for it


def test_what_was_measured_says_the_same_of_files_that_were_touched_and_of_a_copy_elsewhere(bench: Workbench, tmp_path: Path) -> None:
    measure(bench, tmp_path / "held_out")
    before = bench.judge(bench.find("run")[0])
    assert before.rule == "measured" and len(before.scores) == 3
    os.utime(tmp_path / "outputs" / "run" / "checkpoint-2" / WEIGHTS, (1e9, 1e9))
    assert bench.judge(bench.find("run")[0]) == before
    shutil.copytree(tmp_path / "outputs", tmp_path / "elsewhere")
    there = Workbench(Settings(tmp_path / "home", (tmp_path / "elsewhere",), (tmp_path / "bases",), device=DEVICE))
    assert there.judge(there.find("run")[0]) == before


def test_weights_that_are_written_anew_are_measured_anew(bench: Workbench, tmp_path: Path) -> None:
    before = measure(bench, tmp_path / "held_out")
    file = tmp_path / "outputs" / "run" / "checkpoint-2" / WEIGHTS
    shutil.copyfile(tmp_path / "outputs" / "run" / "checkpoint-3" / WEIGHTS, file)
    bench = Workbench(bench.settings)
    run, _ = bench.find("run")
    assert {one.checkpoint_id for one in bench.measurements(run)[LOSS]} == {BASE, "run@1", "run@3"}
    after = measure(bench, tmp_path / "held_out")
    assert after[LOSS, "2"].reused and np.array_equal(after[LOSS, "2"].values, before[LOSS, "3"].values)  # known by its weights


def test_a_checkpoint_that_cannot_be_proven_has_no_loss_and_stops_no_other(bench: Workbench, tmp_path: Path) -> None:
    file = tmp_path / "outputs" / "run" / "checkpoint-2" / WEIGHTS
    tensors = load_file(file)
    strange = {name.replace("to_q", "to_nowhere"): values for name, values in tensors.items()}
    save_file(strange, file, {"format": "pt"})
    found = items(Workbench(bench.settings), tmp_path / "held_out")
    assert [type(item).__name__ for item in found] == ["Measured", "Measured", "NotMeasured", "Measured"]
    run, _ = bench.find("run")
    assert {one.checkpoint_id for one in Workbench(bench.settings).measurements(run)[LOSS]} == {BASE, "run@1", "run@3"}


def test_a_loss_that_is_not_finite_is_kept_told_and_not_judged(bench: Workbench, tmp_path: Path) -> None:
    file = tmp_path / "outputs" / "run" / "checkpoint-2" / WEIGHTS
    tensors = {name: np.full_like(values, 1e30) for name, values in load_file(file).items()}
    shutil.rmtree(file.parent)
    write_step(tmp_path / "outputs" / "run", 2, tensors)
    bench = Workbench(bench.settings)
    found = measure(bench, folder(tmp_path / "held_out", 6))
    assert not np.isfinite(found[LOSS, "2"].values).all()
    verdict = bench.judge(bench.find("run")[0])
    assert verdict.rule == "measured" and "run@2" in verdict.unknown and "run@2" not in verdict.window
    assert any("step 2" in told and "not all finite" in told for told in verdict.warnings)
    assert measure(Workbench(bench.settings), tmp_path / "held_out")[LOSS, "2"].reused


# -- the images ------------------------------------------------------------------------------------------------------------


def test_pictures_of_other_sizes_and_kinds_are_cut_and_it_is_told(bench: Workbench, tmp_path: Path) -> None:
    place = tmp_path / "mixed"
    picture(place / "a.png", 1, (200, 100))
    picture(place / "b.jpg", 2, (64, 64))
    picture(place / "c.png", 3, (30, 90), "L")
    picture(place / "d.png", 4, (64, 64), "RGBA")
    (place / "a.txt").write_text("a red shoe")
    plan = bench.plan_measure(bench.find("run")[0], MeasureSpec(held_out=place, draws=4), Answers(base="sd_nano"))
    assert any("2 of 4 images" in told and "64 × 64" in told and "1 of them is smaller" in told for told in plan.told), plan.told
    found = measure(bench, place)[LOSS, "1"]
    assert found.items == ("a.png", "b.jpg", "c.png", "d.png") and np.isfinite(found.values).all()
    assert any("2 of 4 images" in told and "1 of them is smaller" in told for told in found.told), found.told
    assert any("3 have no caption" in told for told in found.told), found.told


@pytest.mark.parametrize(
    ("spoil", "fault", "told"),
    [
        (lambda place: shutil.rmtree(place), NotFound, "no folder"),
        (lambda place: [file.unlink() for file in place.glob("*.png")], BadInput, "no image"),
        (lambda place: (place / "1.png").write_bytes((place / "1.png").read_bytes()[:60]), Unreadable, r"1\.png is no picture"),
        (lambda place: (place / "metadata.jsonl").write_text('{"file_name": '), Unreadable, "line 1 is no JSON"),
        (lambda place: (place / "metadata.jsonl").write_bytes(b"\xff\xfe{"), Unreadable, "UTF-8"),
    ],
)
def test_folders_that_cannot_be_measured_on_are_quoted(
    bench: Workbench, tmp_path: Path, spoil: Any, fault: type[CmpError], told: str
) -> None:
    spoil(tmp_path / "held_out")
    with pytest.raises(fault, match=told):
        measure(bench, tmp_path / "held_out")
    assert bench.measurements(bench.find("run")[0]) == {}


def test_one_image_or_one_checkpoint_is_measured_and_nothing_is_told_apart(bench: Workbench, tmp_path: Path) -> None:
    measure(bench, folder(tmp_path / "one", 1))
    verdict = bench.judge(bench.find("run")[0])
    assert verdict.best is None and len(verdict.window) == 3 and any("too few" in told for told in verdict.warnings)
    other = bench_over(tmp_path / "single", tmp_path / "bases" / "sd_nano", unet_adapter(tmp_path / "bases" / "sd_nano", 4, 9))
    assert len(measure(other, tmp_path / "held_out")) == 2 and other.measured(other.find("run")[0]) == ()


def test_held_out_images_that_were_trained_with_are_left_out_and_a_folder_of_nothing_else_is_refused(
    bench: Workbench, tmp_path: Path
) -> None:
    train = folder(tmp_path / "train", range(2, 8))
    found = measure(bench, tmp_path / "held_out", training=train)
    assert found[LOSS, "1"].items == ("0.png", "1.png") and len(found[TRAINING_LOSS, "1"].items) == 6
    assert any("2 of 4 images" in told and "left out" in told for told in found[LOSS, "1"].told)
    with pytest.raises(Refused, match="every image"):
        measure(bench, train, training=train)


def test_folders_are_remembered_for_the_run_and_without_any_it_is_told_what_to_give(bench: Workbench, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="on which images"):
        measure(bench, None)
    first = measure(bench, tmp_path / "held_out", training=folder(tmp_path / "train", range(4, 8)))
    again = measure(Workbench(bench.settings), None)
    assert (
        set(again) == set(first) and all(one.reused for one in again.values()) and {metric for metric, _ in again} == {LOSS, TRAINING_LOSS}
    )


# -- the plan, and the work ------------------------------------------------------------------------------------------------


def test_the_plan_says_what_is_new_how_long_it_takes_and_how_small_a_difference_it_will_see(bench: Workbench, tmp_path: Path) -> None:
    run, _ = bench.find("run")
    spec = MeasureSpec(held_out=folder(tmp_path / "many", 6), draws=4)
    before = bench.plan_measure(run, spec, Answers(base="sd_nano"))
    assert (before.total, before.new, before.seconds, before.smallest, before.faults) == (4, 4, None, None, ())
    measure(bench, tmp_path / "many")
    after = bench.plan_measure(run, spec, Answers(base="sd_nano"))
    assert (after.new, after.seconds) == (0, 0) and after.smallest and after.smallest > 0
    more = bench.plan_measure(run, replace(spec, seed=1, draws=400), Answers(base="sd_nano"))
    assert more.new == 4 and more.seconds and more.seconds > 0 and more.draws == 400


def test_leaving_stops_within_a_batch_keeps_what_was_measured_and_frees_the_card(bench: Workbench, tmp_path: Path) -> None:
    run, _ = bench.find("run")
    work = bench.follow_measure(run, MeasureSpec(held_out=tmp_path / "held_out", draws=4), Answers(base="sd_nano"))
    for item in work:
        if isinstance(item, Measured) and item.checkpoint_id == "run@1":
            break
    for item in work:
        if isinstance(item, Progress) and "measuring" in item.what:
            break
    work.close()  # type: ignore[attr-defined]
    assert {one.checkpoint_id for one in bench.measurements(run)[LOSS]} == {BASE, "run@1"}
    assert bench.gpu.acquire(timeout=1) and bench.jobs.records()[-1].state == "cancelled"
    bench.gpu.release()
    assert [one.reused for one in measure(bench, tmp_path / "held_out").values()] == [True, True, False, False]


def test_a_job_is_made_again_from_what_was_kept_of_it(bench: Workbench, tmp_path: Path) -> None:
    run, _ = bench.find("run")
    spec = MeasureSpec(checkpoints=run.checkpoints[:1], held_out=tmp_path / "held_out", draws=4)
    assert len(list(bench.follow_measure(run, spec, Answers(base="sd_nano")))) > 2
    (record,) = bench.jobs.records()
    order = bench.jobs.order(record.id)
    assert order is not None and (record.state, record.done, record.total) == ("done", 2, 2)
    work, subject = Workbench(bench.settings)._measure_again(json.loads(json.dumps(order)))
    assert subject == replace(spec, seed=0)
    assert [(item.checkpoint_id, item.reused) for item in work() if isinstance(item, Measured)] == [(BASE, True), ("run@1", True)]


def test_a_run_is_measured_on_with_the_draws_that_it_was_measured_with(bench: Workbench, tmp_path: Path) -> None:
    measure(bench, tmp_path / "held_out", draws=6, seed=2)
    assert all(one.reused for one in measure(bench, None, draws=None).values())
    assert not measure(bench, None, draws=4)[LOSS, "1"].reused


def test_watch_measures_each_checkpoint_that_lands_and_goes_on_where_images_are_gone(bench: Workbench, tmp_path: Path) -> None:
    pattern = GridSpec((None,), (Prompt("a"),), samplings=(Sampling(1, 1.0),))
    run, _ = bench.find("run")
    with pytest.raises(BadInput, match="on which images"):
        bench.start_watch("run", pattern, measure=True)
    measure(bench, tmp_path / "held_out", checkpoints=run.checkpoints[:1])
    for file in (tmp_path / "outputs").rglob("*.safetensors"):
        os.utime(file, (1_700_000_000, 1_700_000_000))
    found = list(bench.watch("run", pattern, Answers(base="sd_nano"), once=True, measure=True))
    new = [item.checkpoint_id for item in found if isinstance(item, Measured) and not item.reused]
    assert new == ["run@3", "run@2"]  # the newest first; the other's weights are known
    assert {one.checkpoint_id for one in bench.measurements(bench.find("run")[0])[LOSS]} == {BASE, "run@1", "run@2", "run@3"}
    shutil.rmtree(tmp_path / "held_out")
    again = list(bench.watch("run", pattern, Answers(base="sd_nano"), once=True, measure=True))
    assert sum(isinstance(item, Tile) for item in again) == 3 and any(isinstance(item, NotMeasured) for item in again)


def test_the_demo_comes_with_images_of_its_own(demo_home: Path) -> None:
    bench = Workbench(Settings(home=demo_home, device=DEVICE))
    assert bench.last_measured(bench.library().runs[0]).held_out == demo_home / "demo" / "data" / "held_out"


def test_the_alpha_and_base_that_were_given_are_remembered_only_where_they_were_proven(bench: Workbench, tmp_path: Path) -> None:
    run, _ = bench.find("run")
    measure(bench, tmp_path / "held_out")
    assert bench.answers(run) == Answers(base="sd_nano")
    with pytest.raises(NotFound):
        measure(bench, tmp_path / "held_out", "no-such-base")
    assert bench.answers(run) == Answers(base="sd_nano")
