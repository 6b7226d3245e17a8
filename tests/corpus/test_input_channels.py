"""Full fine-tunes whose UNet takes in a picture beside the noise: right on a base of their own kind, refused by name on another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.in_process import Said, command

from .reference import load_pipeline
from .test_variations import base_of, distance
from .variations import perturb

pytestmark = pytest.mark.model

KINDS = {8: "StableDiffusionInstructPix2PixPipeline", 9: "StableDiffusionInpaintPipeline"}


def widened(pipe: Any, channels: int) -> Any:
    """The UNet with further channels of input, whose weights are zero at first, as diffusers' InstructPix2Pix script makes it."""
    old = pipe.unet.conv_in
    new = torch.nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :4], new.bias[:] = old.weight, old.bias
    pipe.unet.conv_in = new
    pipe.unet.register_to_config(in_channels=channels)
    return pipe


class Place:
    def __init__(self, corpus: Path, folder: Path, channels: int) -> None:
        self.folder, self.plain, self.own = folder, corpus / "bases" / "sd_nano", folder / "bases" / "own"
        pipe = widened(base_of(self.plain), channels)
        pipe.save_pretrained(self.own)
        index = json.loads((self.own / "model_index.json").read_bytes()) | {"_class_name": KINDS[channels]}
        (self.own / "model_index.json").write_text(json.dumps(index))
        self.trained = perturb(pipe.unet, 6)
        self.trained.save_pretrained(folder / "outputs" / "run1" / "checkpoint-2" / "unet")

    def convert(self, base: Path, form: str = "pipeline") -> tuple[Said, Path]:
        output = self.folder / "made"
        order = ("convert", "run1@2", "--to", form, "--base", str(base), "--output", str(output), "--json")
        return command(self.folder / "home", "--runs", str(self.folder / "outputs"), *order), output


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, corpus: Path, tmp_path: Path) -> Place:
    return Place(corpus, tmp_path, request.param)


def test_on_a_base_of_its_kind_it_is_a_plain_fine_tune_and_every_tensor_is_the_checkpoints(place: Place) -> None:
    said, made = place.convert(place.own)
    assert said.code == 0 and not said.crashed, said.told
    pipe = load_pipeline(made)
    trained, base = place.trained.state_dict(), base_of(place.plain).unet.state_dict()
    assert type(pipe).__name__ == json.loads((place.own / "model_index.json").read_bytes())["_class_name"]
    for name, values in pipe.unet.state_dict().items():
        assert torch.equal(values, trained[name]), name
    assert distance(trained["conv_in.bias"].numpy(), base["conv_in.bias"].numpy()) > 1e-3


@pytest.mark.parametrize("form", ["pipeline", "single"])
def test_on_a_base_that_draws_from_noise_it_is_refused_and_told_what_it_was_trained_for(place: Place, form: str) -> None:
    said, made = place.convert(place.plain, form)
    kind = {8: "InstructPix2Pix", 9: "inpainting"}[place.trained.config.in_channels]
    assert said.code == 5 and not said.crashed and not made.exists(), said.told
    assert f"{place.trained.config.in_channels} channels ({kind})" in said.json["error"]
    assert f"a pipeline for {kind} as --base" in said.json["hint"] and "input image" in said.json["hint"]


def test_the_other_way_round_the_hint_asks_for_a_base_that_draws_from_noise(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "outputs" / "run1" / "checkpoint-4" / "unet"
    perturb(base_of(place.plain).unet, 6).save_pretrained(folder)
    order = ("convert", "run1@4", "--to", "pipeline", "--base", str(place.own), "--json")
    said = command(tmp_path / "home", "--runs", str(tmp_path / "outputs"), *order)
    assert said.code == 5 and "drawing from noise as --base" in said.json["hint"] and "input image" not in said.json["hint"]


def test_it_is_not_drawn_without_the_picture_that_it_changes(place: Place) -> None:
    order = ("grid", "run1@2", "--prompt", "a cat", "--steps", "1", "--size", "64x64", "--json", "--base")
    for base in (place.own, place.plain):
        said = command(place.folder / "home", "--runs", str(place.folder / "outputs"), *order, str(base))
        assert said.code == 5 and not said.crashed and "image" in said.err, said.told
