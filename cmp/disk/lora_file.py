"""Writes a checkpoint's adapter as one small LoRA file, reading only the adapter's tensors out of however large a checkpoint.

The scale alpha/rank is folded into lora_B, so that every tool draws it at the strength it was trained with, whether or not the tool knows
about alpha. For a power of two, as in rank 8 with alpha 16, folding is exact; else it is off by at most one unit in the last place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import numpy as np
from safetensors import deserialize

from cmp import __version__
from cmp.core.conversion import GENERATOR, Conversion, ConversionPlan, to_webui_name, whole_metadata
from cmp.core.progress import Progress, counted_from
from cmp.core.scale import Scale
from cmp.disk.checkpoint import Opened
from cmp.disk.converted import RECORD
from cmp.disk.numbers import as_float32, narrowed
from cmp.disk.replacing import replacing
from cmp.disk.tensors import read_tensors
from cmp.disk.writing import ENDING, write_draft
from cmp.errors import Refused

Verify = Callable[[Path, Mapping[str, np.ndarray], Path | None], Generator[Progress, None, str]]


def read_folded(opened: Opened, scale: Scale) -> dict[str, np.ndarray]:
    """The adapter under diffusers' names as float32, each module's scale folded into lora_B. A few MB, whatever the checkpoint's size."""
    folded = {}
    for module in opened.weights.adapted:
        names, roles = module.canonical, {stored: role for role, stored in module.parts.items()}
        for stored, array in read_tensors(opened.header, names):
            values = module.cut(roles[stored], as_float32(array, opened.header.tensors[stored].dtype))
            with np.errstate(over="ignore"):  # an overflow becomes an infinity, which is refused below
                folded[names[stored]] = values * np.float32(scale.of(module.key)) if ".lora_B." in names[stored] else values
    _check_finite(folded)
    return folded


def of_one_rank(folded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same adapter with every pair filled up with zeros to the largest rank, which changes no product.

    Where ranks differ some loaders are silently wrong: diffusers up to 0.42 loses the alphas of kohya's attention modules, and older ones
    give all modules one alpha.
    """
    ranks = {name: values.shape[0] for name, values in folded.items() if name.endswith(".lora_A.weight")}
    if len(set(ranks.values())) < 2:
        return dict(folded)
    most, filled = max(ranks.values()), {}
    for name, values in folded.items():
        axis = 0 if name.endswith(".lora_A.weight") else 1 if name.endswith(".lora_B.weight") else None
        widths = [(0, most - values.shape[axis] if i == axis else 0) for i in range(values.ndim)]
        filled[name] = np.pad(values, widths) if axis is not None else values
    return filled


def with_known_attention(folded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same adapter, and a pair of zeros for each text encoder whose attention is adapted without its `out_proj`.

    diffusers (0.42: `convert_state_dict_to_peft`) knows kohya's names for a text encoder by that module, and raises where it is missing.
    """
    whole = dict(folded)
    for component in dict.fromkeys(name.partition(".")[0] for name in folded if name.startswith("text_encoder")):
        halves = [name for name in folded if name.startswith(f"{component}.") and ".self_attn." in name]
        if halves and not any(".out_proj." in name for name in halves):
            module = halves[0].partition(".self_attn.")[0] + ".self_attn."
            first = next(name for name in halves if name.startswith(module)).removeprefix(module).partition(".")[0]
            for half in ("lora_A.weight", "lora_B.weight"):  # all four projections have one shape
                whole[f"{module}out_proj.{half}"] = np.zeros_like(folded[f"{module}{first}.{half}"])
    return whole


def _check_finite(folded: Mapping[str, np.ndarray]) -> None:
    bad = [name for name, values in folded.items() if not np.isfinite(values).all()]
    if bad:
        raise Refused(
            f"{len(bad)} tensors hold NaN or infinity, the first is {bad[0]}", "The training broke down here; take an earlier step."
        )


def convert_to_lora(
    plan: ConversionPlan, opened: Opened, checks: tuple[str, ...], digest: str, verify: Verify
) -> Generator[Progress, None, Conversion]:
    """Carries out a plan for the forms "lora" and "webui"; the target is either complete and proven, or as it was before.

    `opened` is what the plan was made for, `checks` are the proofs that it has passed, in words, `digest` is that of what was trained.
    `verify(draft, adapter, base)` proves the file before it takes its name.
    """
    started = time.monotonic()
    assert plan.scale is not None
    yield Progress(1, 3, "reading the adapter")
    folded = read_folded(opened, plan.scale)
    if not any(values.any() for name, values in folded.items() if ".lora_A." not in name):
        checks = (*checks, "identical to the base model: every lora_B is zero")
    kind = plan.writing.dtype or "F32"
    folded = with_known_attention(folded) if plan.form == "webui" else folded
    adapter = {name: narrowed(name, values, "F32", kind) for name, values in of_one_rank(folded).items()}
    metadata = _metadata(plan, conversion_record(plan, opened, digest) | {"checks": list(checks)})
    checks = (*checks, *(yield from _write(plan, adapter, kind, metadata, verify)))
    return Conversion(
        plan.checkpoint.id, plan.form, plan.target, plan.target.stat().st_size, time.monotonic() - started,
        len(opened.header.tensors), len(opened.weights.canonical), plan.left_out, plan.scale, checks,
    )  # fmt: skip


def _write(
    plan: ConversionPlan, adapter: Mapping[str, np.ndarray], kind: str, metadata: Mapping[str, str], verify: Verify
) -> Generator[Progress, None, tuple[str, str]]:
    """Writes the adapter, whose values are stored as `kind`, and gives the proofs that the file passed before it took its name."""
    tensors = _named_for(plan.form, adapter)
    described = {name: ("F32" if name.endswith(".alpha") else kind, values.shape) for name, values in tensors.items()}
    meant = {name: as_float32(values, kind) for name, values in adapter.items()}
    with replacing(plan.target, ENDING) as draft:
        syncing = yield from write_draft(draft, "the file", described, tensors.__getitem__, metadata)
        yield Progress(2, 3, "reading it back", plan.bytes)
        _read_back(draft, plan.target, tensors)
        proof = yield from counted_from(2 * plan.bytes, verify(draft, meant, plan.base.path if plan.base else None))
        whole = Progress(3, 3, "giving it its name", 2 * plan.bytes)
        yield from syncing.wait(whole)
        yield whole  # the last: who leaves after it finds the old state too
    return f"read back: all {len(tensors)} tensors equal what was taken from the checkpoint", proof


def _named_for(form: str, folded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if form == "lora":
        return dict(folded)
    several = any(name.startswith("text_encoder_2.") for name in folded)
    named = {to_webui_name(name, several): values for name, values in folded.items()}
    # such files carry alpha per module and multiply by alpha/rank on loading: with alpha = rank the folded values stay as they are
    end = ".lora_down.weight"
    ranks = {name.removesuffix(end): values.shape[0] for name, values in named.items() if name.endswith(end)}
    return named | {f"{name}.alpha": np.array(rank, dtype="<f4") for name, rank in ranks.items()}


def _metadata(plan: ConversionPlan, record: Mapping[str, object]) -> dict[str, str]:
    entries: dict[str, object] = {"format": "pt", "generator": f"{GENERATOR} {__version__}", RECORD: json.dumps(record)}
    if plan.form == "webui" and plan.scale:
        entries |= {"ss_network_dim": plan.scale.rank, "ss_network_alpha": plan.scale.rank, "ss_network_module": "networks.lora"}
    return whole_metadata(entries)


def conversion_record(plan: ConversionPlan, opened: Opened, digest: str) -> dict[str, object]:
    """What a converted form says of itself: where it came from, by which proof, with which scale."""
    weights = opened.weights
    return {
        "generator": GENERATOR,
        "version": __version__,
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "checkpoint": plan.checkpoint.id,
        "step": plan.checkpoint.step,
        "form": plan.form,
        "digest": digest,
        "tensors": {"pairs": len(weights.adapted), "plain": len(weights.plain), "unexplained": len(weights.unexplained)},
        "scale": plan.scale.as_json() if plan.scale else None,
        "scale_folded": True,
        **plan.writing.as_json(),
        "base": plan.base.as_json() if plan.base else None,
    }


def _read_back(draft: Path, target: Path, expected: Mapping[str, np.ndarray]) -> None:
    """Reads the written file with the safetensors library, not with the reader that took part in making it."""
    found = dict(deserialize(draft.read_bytes()))
    if set(found) != set(expected):
        raise Refused(f"{target} does not hold what was written", "The disk may be failing; convert again.")
    for name, content in found.items():
        if content["data"] != np.ascontiguousarray(expected[name]).reshape(-1).view(np.uint8).data:
            raise Refused(f"{target} came back with another {name}", "The disk may be failing; convert again.")
