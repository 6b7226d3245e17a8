"""The corpus: real checkpoints, what is known of each, and what must become of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SAME = 1e-6  # what the same weights give from other factors, in other memory


@dataclass(frozen=True, slots=True)
class Case:
    """What must come out.

    `rank` and `scale` are what `show` says of every checkpoint; `scale` is None where there is not one for all. `rounded_base`: it was
    trained on the base in bfloat16. `exact`: an unmerged LoRA file, or full weights, give the bits of the model that was trained.
    `refused` names by tag the only checkpoints that may be refused, with the words that the refusal must contain. `drawn_only`: every
    converted form may be refused, drawing may not. `sampling` is what the truth's picture was drawn with beside the usual.
    """

    name: str
    trainers: tuple[str, ...]
    rank: tuple[int, ...] = ()
    scale: float | None = None
    exact: bool = False
    rounded_base: bool = False
    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drawn_only: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)


ACCELERATE, DIFFUSERS, PEFT, KOHYA = ("accelerate",), ("diffusers",), ("peft", "accelerate"), ("kohya", "sd-scripts", "lycoris")
_T5 = {"max_sequence_length": 16}

CASES = (
    Case("acc_adapter", ACCELERATE, (4,), 2, exact=True),
    Case("acc_full_unet", ACCELERATE, exact=True),
    Case("acc_peft_bf16", ACCELERATE, (4,), 2, exact=True, rounded_base=True),
    Case("acc_peft_bias_all", ACCELERATE, (4,), 2),
    Case("acc_peft_bin", ACCELERATE, (4,), 2, exact=True),
    Case("acc_peft_dora", ACCELERATE, (4,), 2, exact=True),
    Case("acc_peft_loha", ACCELERATE, (4,), 2),
    Case("acc_peft_r8_a16", ACCELERATE, (8,), 2, exact=True),
    Case("acc_peft_rslora", ACCELERATE, (4,), 4, exact=True),
    Case("acc_peft_sharded", ACCELERATE, (4,), 2),
    Case("acc_peft_two_models", ACCELERATE, (4,), 2),
    Case("aitoolkit_flux", ("ai-toolkit", "aitoolkit"), (4,), 1, exact=True, sampling=_T5),
    Case("db_lora_flux", DIFFUSERS, (4,), 2, exact=True, sampling=_T5),
    Case("db_lora_te", DIFFUSERS, (4,), 1, exact=True),
    Case("deepspeed_layout", ("accelerate", "deepspeed"), (4,), 2, refused={"checkpoint-2": ("DeepSpeed", "zero_to_fp32")}),
    Case("diffusers_meta", DIFFUSERS + ACCELERATE, (4,), 2, exact=True),
    Case("diffusers_mixed_keys", DIFFUSERS + ACCELERATE, (4,), 1),
    Case("fsdp_full", ACCELERATE, (4,), 2, exact=True),
    Case("kohya_blockdims", KOHYA, (2, 3, 4)),
    Case("kohya_lora", KOHYA, (4,), 0.5),
    Case("legacy_attn_procs", DIFFUSERS, (4,), 1),
    Case("lycoris_dora", KOHYA, (2, 4), 0.5),
    Case("lycoris_lokr", KOHYA),
    Case("onetrainer_lora", ("onetrainer",), (4,), 0.5),
    Case("peft_save_pretrained", PEFT, (4,), 2, exact=True),
    Case("t2i_full_ema", DIFFUSERS, exact=True),
    Case("t2i_lora", DIFFUSERS, (4,), 1, exact=True),
    Case("t2i_lora_resume", DIFFUSERS, (4,), 1, exact=True),
    Case("t2i_lora_sdxl", DIFFUSERS, (4,), 1, exact=True),
    Case("textual_inversion", DIFFUSERS, drawn_only=True, sampling={"prompt": "a <sks> cat"}),
)


@dataclass(frozen=True, slots=True)
class Item:
    """One checkpoint of a case as it was captured while the trainer saved it. `places` are relative to the case's folder.

    `probes` are the outputs of the live model by its components' classes, `models` how they were wrapped while training, `effect` how
    far the first of them is from the base.
    """

    tag: str
    step: int | None
    places: tuple[str, ...]
    files: tuple[str, ...]
    probes: Mapping[str, np.ndarray]
    models: tuple[Mapping[str, Any], ...]
    image: np.ndarray | None
    effect: float | None
    ema: bool = False

    @property
    def is_final(self) -> bool:
        return self.tag == "final"


def read_items(folder: Path) -> tuple[str, tuple[Item, ...]]:
    """The case's base model by name, and its checkpoints; those without weights of their own on disk are left out."""
    expected = json.loads((folder / "EXPECT.json").read_text())
    items: list[Item] = []
    for told in expected["checkpoints"]:
        if told.get("trained_files") or (folder / told["path"] / "model_index.json").is_file():
            items.extend(_items(folder, told))
    return expected["base"], tuple(items)


def _items(folder: Path, told: Mapping[str, Any]) -> list[Item]:
    truth = np.load(folder / told["truth_npz"])
    probes = {name.split("_", 2)[2]: truth[name] for name in truth.files if name.startswith("probe_") and not name.startswith("probe_ema")}
    image = truth["image"] if "image" in truth.files else _official_image(folder, told)
    models, effect = tuple(told.get("models") or ()), told.get("effect_max_abs_vs_base")
    files = tuple(told.get("trained_files") or ())
    raw, averaged = (tuple(file for file in files if ("unet_ema" in file) == ema) for ema in (False, True))
    made = [Item(told["tag"], told["step"], _places(told["path"], raw), raw, probes, models, image, effect)]
    if averaged:
        probes = {"UNet2DConditionModel": truth["probe_ema0"]}
        made.append(Item(f"{told['tag']} EMA", told["step"], _places(averaged[0], averaged), averaged, probes, models, None, None, True))
    return made


def _official_image(folder: Path, told: Mapping[str, Any]) -> np.ndarray | None:
    """The picture that diffusers draws with the trainer's own file, where that file loads rightly."""
    official, file = told.get("official") or {}, folder / told["truth_npz"].replace(".npz", ".official.npz")
    off = [part["diff"] for part in official.values() if isinstance(part, dict) and "diff" in part]
    return np.load(file)["image"] if file.is_file() and off and max(off) < SAME else None


def _places(path: str, files: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((path, *files, *(str(Path(file).parent) for file in files))))
