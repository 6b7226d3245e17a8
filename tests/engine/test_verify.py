"""The proof of a LoRA file reads with diffusers and peft: whatever is wrong with a file is found, and a right one is proven."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from cmp.core.progress import run_through
from cmp.errors import Refused
from tests.in_process import command
from tests.support import Tensors, save

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
BASE = CORPUS / "bases" / "sd_nano"
UP = ".lora_B.weight"


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted LoRA file."""
    place = tmp_path_factory.mktemp("verify")
    output = place / "right.safetensors"
    folders = ("--runs", str(CORPUS / "acc_peft_bf16" / "outputs"), "--bases", str(CORPUS / "bases"))
    said = command(place / "home", *folders, "convert", "RUN@2", "--to", "lora", "--output", str(output), "--json")
    assert said.code == 0, said.told
    return output


def verify(file: Path, expected: Path, base: Path | None) -> str:
    from cmp.engine.verify import verify_lora_file

    return run_through(verify_lora_file(file, load_file(expected), base))


def with_change(right: Path, file: Path, change: Callable[[Tensors], object], **metadata: str) -> Path:
    """The right file with a change to its tensors, or with more metadata."""
    tensors = load_file(right)
    change(tensors)
    with safe_open(right, "np") as opened:
        return save(file, tensors, dict(opened.metadata()) | metadata)


def flip_one_bit(tensors: Tensors) -> None:
    name = sorted(name for name in tensors if name.endswith(UP))[40]
    tensors[name].reshape(-1).view("u1")[5] ^= 1  # the second byte of one number: a change of 2^-15 of it


def swap_two_modules(tensors: Tensors) -> None:
    first = next(name for name in sorted(tensors) if name.endswith(UP))
    second = next(n for n in sorted(tensors) if n.endswith(UP) and n != first and tensors[n].shape == tensors[first].shape)
    for one, other in ((first, second), (first.replace(UP, ".lora_A.weight"), second.replace(UP, ".lora_A.weight"))):
        assert tensors[one].shape == tensors[other].shape
        tensors[one], tensors[other] = tensors[other], tensors[one]


def halve_alpha(tensors: Tensors) -> None:
    for name in tensors:
        if name.endswith(UP):
            tensors[name] = tensors[name] * np.float32(0.5)


def halve_alpha_of_one(tensors: Tensors) -> None:
    name = next(name for name in tensors if name.endswith(UP))
    tensors[name] = tensors[name] * np.float32(0.5)


def leave_one_out(tensors: Tensors) -> None:
    module = next(name for name in sorted(tensors) if name.endswith(UP)).removesuffix(UP)
    del tensors[module + UP], tensors[module + ".lora_A.weight"]


def add_one(tensors: Tensors) -> None:
    name = next(name for name in sorted(tensors) if name.endswith(UP))
    for half in (UP, ".lora_A.weight"):
        tensors[name.replace("attn1.to_k" + UP, "ff.net.2" + half)] = tensors[name.replace(UP, half)]


def name_one_in_the_older_way(tensors: Tensors) -> None:
    """diffusers looks at the first name only and then leaves out, in silence, what is named in another way."""
    module = sorted(name for name in tensors if name.endswith(UP))[-1].removesuffix(UP)
    tensors[module + ".lora.up.weight"] = tensors.pop(module + UP)
    tensors[module + ".lora.down.weight"] = tensors.pop(module + ".lora_A.weight")


def lose_the_component(tensors: Tensors) -> None:
    """Names that no loader knows: diffusers loads nothing, and only logs it."""
    for name in list(tensors):
        tensors[name.replace("unet.", "base_model.model.", 1)] = tensors.pop(name)


CHANGES = (
    flip_one_bit, swap_two_modules, halve_alpha, halve_alpha_of_one, leave_one_out, add_one, name_one_in_the_older_way, lose_the_component,
)  # fmt: skip


@pytest.mark.parametrize("base", [None, BASE], ids=["alone", "on its base"])
def test_a_right_file_is_proven_in_words(right: Path, base: Path | None) -> None:
    assert verify(right, right, base)


@pytest.mark.parametrize("base", [None, BASE], ids=["alone", "on its base"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_wrong_file_is_refused(right: Path, tmp_path: Path, change: Callable[[Tensors], object], base: Path | None) -> None:
    wrong = with_change(right, tmp_path / "wrong.safetensors", change)
    with pytest.raises(Refused):
        verify(wrong, right, base)


@pytest.mark.parametrize("base", [None, BASE], ids=["alone", "on its base"])
def test_a_file_whose_head_makes_diffusers_draw_it_at_another_strength_is_refused(right: Path, tmp_path: Path, base: Path | None) -> None:
    told = json.dumps({"unet.r": 4, "unet.lora_alpha": 8, "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"]})
    wrong = with_change(right, tmp_path / "wrong.safetensors", lambda tensors: None, lora_adapter_metadata=told)
    with pytest.raises(Refused):
        verify(wrong, right, base)


def test_a_file_for_another_base_is_refused(right: Path, tmp_path: Path) -> None:
    def widen(tensors: Tensors) -> None:
        for name, values in tensors.items():
            tensors[name] = np.concatenate([values, values], axis=0 if name.endswith(UP) else 1)

    wide = with_change(right, tmp_path / "wide.safetensors", widen)
    with pytest.raises(Refused):
        verify(wide, wide, BASE)


def test_the_file_is_left_as_it_was(right: Path) -> None:
    before = (right.read_bytes(), right.stat().st_mtime_ns)
    verify(right, right, BASE)
    assert (right.read_bytes(), right.stat().st_mtime_ns) == before


@pytest.fixture(scope="module")
def of_text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A LoRA with a text encoder, converted where no base is at hand: under kohya's names and under diffusers'."""
    place = tmp_path_factory.mktemp("of_text")
    made = [place / f"{form}.safetensors" for form in ("webui", "lora")]
    for file in made:
        folders = ("--runs", str(CORPUS / "acc_peft_two_models" / "outputs"))
        said = command(place / "home", *folders, "convert", "RUN@2", "--to", file.stem, "--output", str(file), "--json")
        assert said.code == 0, said.told
    return made[0], made[1]


@pytest.mark.parametrize("base", [None, BASE], ids=["alone", "on its base"])
def test_a_text_encoder_under_kohyas_names_is_proven(of_text: tuple[Path, Path], base: Path | None) -> None:
    webui, lora = of_text
    assert any(name.startswith("lora_te_") for name in load_file(webui))
    assert "all 272 tensors" in verify(webui, lora, base)


def flip_one_bit_of_text(tensors: Tensors) -> None:
    name = next(name for name in sorted(tensors) if name.startswith("lora_te_") and "k_proj.lora_up" in name)
    tensors[name].reshape(-1).view("u1")[5] ^= 1


def leave_out_the_module_that_diffusers_knows_the_names_by(tensors: Tensors) -> None:
    """diffusers then reads every tensor, and none of the text encoder would be attached."""
    for name in [name for name in tensors if name.startswith("lora_te_") and "out_proj" in name]:
        del tensors[name]


def halve_alphas_of_text(tensors: Tensors) -> None:
    for name in tensors:
        if name.startswith("lora_te_") and name.endswith(".alpha"):
            tensors[name] = np.asarray(tensors[name] / 2, "<f4")


@pytest.mark.parametrize("base", [None, BASE], ids=["alone", "on its base"])
@pytest.mark.parametrize("change", [flip_one_bit_of_text, leave_out_the_module_that_diffusers_knows_the_names_by, halve_alphas_of_text])
def test_a_wrong_text_encoder_under_kohyas_names_is_refused(
    of_text: tuple[Path, Path], tmp_path: Path, change: Callable[[Tensors], object], base: Path | None
) -> None:
    webui, lora = of_text
    expected = load_file(lora)
    wrong = with_change(webui, tmp_path / "wrong.safetensors", change)
    if change is leave_out_the_module_that_diffusers_knows_the_names_by:
        expected = {name: values for name, values in expected.items() if not (name.startswith("text_encoder") and "out_proj" in name)}
    with pytest.raises(Refused):
        verify(wrong, save(tmp_path / "expected.safetensors", expected), base)
