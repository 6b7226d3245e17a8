"""What becomes of the variations: right in every form that can hold them, refused by name in the others, never something else."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel

from tests.in_process import Said, command

from .reference import load_base, load_pipeline, quiet
from .variations import VARIATIONS, Variation

pytestmark = pytest.mark.model

SAME = 2e-6  # of the outputs' size; merging alone makes up to 1e-6
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "controlnet")
Probes = dict[str, np.ndarray]


class Workplace:
    """Trains a variation in a folder of its own, and asks the command line about it."""

    def __init__(self, corpus: Path, probing: Any, place: Path, variation: Variation) -> None:
        self.bases, self.probing, self.place, self.variation = corpus / "bases", probing, place, variation
        run = place / "outputs" / "run1"
        run.mkdir(parents=True)
        pipe = base_of(self.bases / variation.base)
        live = variation.make(pipe, run) or pipe
        for part in PARTS:
            if isinstance(model := getattr(live, part, None), PeftModel):
                setattr(live, part, model.base_model.model)
        self.live, self.truth = live, self.probe(live)

    def probe(self, pipe: Any) -> Probes:
        return {
            part: self.probing.probe(model) for part in PARTS if (model := getattr(pipe, part, None)) is not None and can_be_probed(model)
        }

    def say(self, *arguments: str) -> Said:
        said = command(self.place / "home", "--runs", str(self.place / "outputs"), "--bases", str(self.bases), *arguments)
        assert not said.crashed, said.told
        return said

    def convert(self, form: str, *more: str) -> tuple[Said, Path]:
        output = self.place / "made" / (form if form == "pipeline" else f"{form}.safetensors")
        base = ("--base", str(self.bases / self.variation.base))
        order = ("convert", f"run1@{self.variation.key}", "--to", form, *base, "--output", str(output), "--json")
        return self.say(*order, *self.variation.more, *more), output

    def load(self, made: Path, form: str) -> Any:
        """The form in a pipeline of its own, by diffusers' plain calls."""
        if form == "pipeline":
            return load_pipeline(made)
        folder = self.bases / self.variation.base
        pipe = base_of(folder)
        if form == "single":
            return quiet(type(pipe).from_single_file(made, config=str(folder), local_files_only=True))
        for part in self.variation.rounded:
            for parameter in getattr(pipe, part).parameters():
                parameter.data = parameter.data.to(torch.bfloat16).float()
        pipe.load_lora_weights(made)
        return pipe

    def off(self, made: Path, form: str) -> dict[str, float]:
        """How far each component is off the truth, of those that are not near enough."""
        seen = self.probe(self.load(made, form))
        off = {part: distance(seen[part], truth) for part, truth in self.truth.items()}
        return {part: far for part, far in off.items() if not far <= SAME}


@cache
def _base(folder: Path) -> Any:
    torch.set_num_threads(1)
    return load_base(folder, rounded=False)


def base_of(folder: Path) -> Any:
    """A base model that may be changed."""
    return copy.deepcopy(_base(folder))


def can_be_probed(model: Any) -> bool:
    return not (type(model).__name__ == "ControlNetModel" and model.config.addition_embed_type) and not type(model).__name__.startswith(
        "T5"
    )


def distance(seen: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(seen - truth).max()) / max(1.0, float(np.abs(truth).max()))


@pytest.fixture
def workplace(request: pytest.FixtureRequest, corpus: Path, probing: Any, tmp_path: Path) -> Iterator[Workplace]:
    torch.manual_seed(0)
    if not (corpus / "bases" / request.param.base).is_dir():
        pytest.skip(f"{request.param.base} is in the whole corpus only, which CMP_CORPUS names")
    yield Workplace(corpus, probing, tmp_path, request.param)


def the(name: str) -> Any:
    return pytest.mark.parametrize("workplace", [v for v in VARIATIONS if v.name == name], indirect=True)


@pytest.mark.parametrize("workplace", VARIATIONS, indirect=True, ids=lambda variation: variation.name)
def test_what_comes_out_is_what_was_trained_or_is_refused(workplace: Workplace) -> None:
    for form in workplace.variation.right:
        said, made = workplace.convert(form)
        assert said.code == 0, f"{form}: {said.told}"
        assert workplace.off(made, form) == {}, f"--to {form} is wrong"
    for form, word in workplace.variation.refused.items():
        said, made = workplace.convert(form)
        assert said.code == 5 and word in said.json["error"] and not made.exists(), f"{form}: {said.told}"


IN_ORIGINAL_NAMES = ("Flux by kohya", "Flux in its own names", "SD 3 by kohya", "LyCORIS LoKr of whole factors by rsLoRA")


def test_every_variation_has_an_effect_that_a_wrong_form_would_not_have(corpus: Path, probing: Any, tmp_path: Path) -> None:
    names = ("patterns", "LoKr", "Tucker", "a text encoder alone", "biases beside a PEFT adapter", *IN_ORIGINAL_NAMES)
    tried = [v for v in VARIATIONS if v.name in names and (corpus / "bases" / v.base).is_dir()]
    for number, variation in enumerate(tried):
        place = Workplace(corpus, probing, tmp_path / str(number), variation)
        base = place.probe(base_of(place.bases / variation.base))
        assert max(distance(base[part], truth) for part, truth in place.truth.items()) > 1e-3, variation.name


@the("patterns")
def test_what_is_drawn_is_what_the_live_model_draws(workplace: Workplace) -> None:
    from .judging import LEVEL, read_picture

    order = ("--prompt", "a red cat", "--steps", "4", "--guidance", "5", "--seeds", "7", "--size", "64x64", "--json")
    said = workplace.say("grid", "run1@2", *order, "--base", str(workplace.bases / "sd_nano"))
    assert said.code == 0, said.told
    (tile,) = said.json["tiles"]
    assert distance(read_picture(Path(tile["path"])), workplace.probing.ref_image(workplace.live)) <= LEVEL


@pytest.mark.parametrize("workplace", [v for v in VARIATIONS if v.name in ("Flux by kohya", "T5 by kohya")], indirect=True)
def test_a_fused_adapter_is_drawn_as_the_live_model_draws(workplace: Workplace) -> None:
    from .judging import LEVEL, read_picture

    order = ("--prompt", "a red cat", "--steps", "4", "--guidance", "5", "--seeds", "7", "--size", "64x64", "--json")
    said = workplace.say("grid", "run1@2", *order, "--base", str(workplace.bases / "flux_tiny"))
    assert said.code == 0, said.told
    (tile,) = said.json["tiles"]
    assert distance(read_picture(Path(tile["path"])), workplace.probing.ref_image(workplace.live)) <= LEVEL


@the("T5 by kohya")
def test_an_adapter_of_t5_is_merged_into_the_second_text_encoder(workplace: Workplace) -> None:
    said, made = workplace.convert("pipeline")
    assert said.code == 0, said.told
    merged, base, trained = (
        pipe.text_encoder_2.state_dict()
        for pipe in (workplace.load(made, "pipeline"), base_of(workplace.bases / "flux_tiny"), workplace.live)
    )
    for name, values in merged.items():
        torch.testing.assert_close(values, trained[name], rtol=1e-5, atol=1e-6)
    assert sum(not torch.equal(base[name], values) for name, values in merged.items()) == 7


@the("Flux by kohya")
def test_a_fused_tensor_is_counted_once_however_many_modules_share_it(workplace: Workplace) -> None:
    said, _ = workplace.convert("lora")
    (done,) = said.json["converted"]
    tensors = done["tensors"]
    assert tensors["applied"] + len(tensors["left_out"]) == tensors["read"]
    assert {item["why"] for item in tensors["left_out"]} == {"alpha: folded into the weights"}


@the("PiSSA alone")
def test_the_refusal_of_an_adapter_that_changed_its_base_names_the_way_out(workplace: Workplace) -> None:
    said, _ = workplace.convert("lora")
    assert said.code == 5 and "path_initial_model_for_weight_conversion" in said.json["hint"], said.told
    assert "init_lora_weights = 'pissa'" in said.json["error"]


@the("two adapters in one dump")
def test_the_refusal_of_two_trained_adapters_names_both_and_the_way_out(workplace: Workplace) -> None:
    said, _ = workplace.convert("lora")
    assert said.code == 5 and "default, style" in said.json["error"] and "selected_adapters=['style']" in said.json["error"], said.told


@the("two adapters, the second trained")
def test_an_adapter_that_changes_nothing_is_left_out_by_name_and_the_other_is_scaled_by_its_own_config(workplace: Workplace) -> None:
    said, _ = workplace.convert("lora")
    (done,) = said.json["converted"]
    idle = [item for item in done["tensors"]["left_out"] if ".default." in item["name"]]
    assert len(idle) == done["tensors"]["applied"] and {item["why"] for item in idle} == {
        "of the adapter default, which changes nothing: every lora_B of it is zero"
    }
    assert (done["scale"]["alpha"], done["scale"]["source"]) == (2.0, "lora_weights/style/adapter_config.json")


@the("ControlNet")
def test_a_controlnet_is_not_drawn_without_a_control_image(workplace: Workplace) -> None:
    said = workplace.say("grid", "run1@2", "--prompt", "a cat", "--steps", "1", "--base", str(workplace.bases / "sd_nano"))
    assert said.code == 5 and "control image" in said.err


@the("SDXL with its text encoders")
def test_what_was_not_trained_is_the_base_s_byte_for_byte(workplace: Workplace) -> None:
    said, made = workplace.convert("pipeline")
    assert said.code == 0, said.told
    base, trained = workplace.bases / "sdxl_tiny", {Path(part) / name for part, name in WRITTEN}
    files = {file.relative_to(base) for file in base.rglob("*") if file.is_file()}
    assert {file.relative_to(made) for file in made.rglob("*") if file.is_file()} == files | {Path("checkpoint_metadata.json")}
    assert trained <= files
    assert [str(file) for file in sorted(files - trained) if (made / file).read_bytes() != (base / file).read_bytes()] == []


WRITTEN = (
    ("unet", "diffusion_pytorch_model.safetensors"),
    ("text_encoder", "model.safetensors"),
    ("text_encoder_2", "model.safetensors"),
)


@the("ControlNet")
def test_adding_a_controlnet_leaves_the_base_as_it_was(workplace: Workplace) -> None:
    before = (workplace.bases / "sd_nano" / "model_index.json").read_bytes()
    said, made = workplace.convert("pipeline")
    assert said.code == 0 and (workplace.bases / "sd_nano" / "model_index.json").read_bytes() == before
    index = json.loads((made / "model_index.json").read_bytes())
    assert (index["_class_name"], index["controlnet"]) == ("StableDiffusionControlNetPipeline", ["diffusers", "ControlNetModel"])


@the("LoCon of mixed ranks")
@pytest.mark.parametrize(("form", "strength"), [("pipeline", "0.5"), ("single", "0.5"), ("pipeline", "0")])
def test_a_merge_at_half_strength_lies_half_way_between_base_and_trained(workplace: Workplace, form: str, strength: str) -> None:
    said, made = workplace.convert(form, "--strength", strength)
    assert said.code == 0, said.told
    pipes = (workplace.load(made, form), base_of(workplace.bases / "sd_nano"), workplace.live)
    for part in ("unet", "text_encoder"):
        merged, base, trained = (dict(getattr(pipe, part).state_dict()) for pipe in pipes)
        for name, values in merged.items():
            torch.testing.assert_close(values, base[name] + float(strength) * (trained[name] - base[name]), rtol=1e-5, atol=1e-6)


@the("LoCon of mixed ranks")
@pytest.mark.parametrize(
    ("form", "dtype", "near"), [("lora", "bf16", 5e-2), ("webui", "fp16", 5e-3), ("pipeline", "fp16", 5e-3), ("single", "bf16", 5e-2)]
)
def test_a_form_in_half_precision_is_near_what_was_trained(workplace: Workplace, form: str, dtype: str, near: float) -> None:
    said, made = workplace.convert(form, "--dtype", dtype)
    assert said.code == 0, said.told
    pipe = workplace.load(made, form)
    for part in ("unet", "text_encoder"):
        seen = workplace.probing.probe(getattr(pipe, part).float())
        assert 1e-7 < distance(seen, workplace.truth[part]) <= near


@the("patterns")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_umask_s_mode(workplace: Workplace, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        outputs = [workplace.convert(form)[1] for form in ("lora", "pipeline")]
    finally:
        os.umask(before)
    written = (outputs[0], outputs[1] / "unet" / "diffusion_pytorch_model.safetensors", outputs[1] / "checkpoint_metadata.json")
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in written} == {file.name: oct(mode) for file in written}
