"""diffusers' schedulers by the names that people know, and which of them draw with a base model: some are made for another kind."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import diffusers

from cmp.core.grids import Sampling
from cmp.disk.json_table import read_json_table
from cmp.errors import Refused, Unreadable

# A1111's names to diffusers' classes
_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "PNDM": ("PNDMScheduler", {}),
}
_EVEN: dict[str, Any] = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
# what each class is by its name alone: a base's own scheduler may be of the class, and set otherwise
_PLAIN: dict[str, dict[str, Any]] = {
    "EulerDiscreteScheduler": _EVEN,
    "HeunDiscreteScheduler": _EVEN,
    "DPMSolverMultistepScheduler": _EVEN
    | {"use_lu_lambdas": False, "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
    "UniPCMultistepScheduler": _EVEN | {"solver_order": 2, "solver_type": "bh2", "predict_x0": True},
}
_FLOWING = ("DPM++ 2M", "UniPC")  # those that can follow the straight paths of flow matching too (SD 3, Flux)
_OF_FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
# settings of a flow matching scheduler that the other classes read otherwise, or not at all
_OTHERWISE = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas", "stochastic_sampling", "shift_terminal")
_OF_FEW_STEPS = ("LCMScheduler", "TCDScheduler")  # of models that were made of usual ones, and predict what those do
_SHIFTING = "FluxPipeline"  # gives every scheduler a shift by the picture's size, wanted or not


def scheduler_of(config: Mapping[str, Any], own: type, name: str) -> Any:
    """A fresh scheduler of that name for a base model whose own is of the class `own` and set so."""
    if name == "base":
        return own.from_config(config)  # type: ignore[attr-defined]
    kind, extra = _SCHEDULERS[name]
    extra = _PLAIN.get(kind, {}) | extra
    if _is_flow({**config, "_class_name": own.__name__}):
        extra = extra | {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": _shift(config)}
    return getattr(diffusers, kind).from_config(config, **extra)


def check_sampler(base: Path, name: str) -> dict[str, str]:
    """What a cell's key says of the sampler beside its name. Raises Refused for one that a base model was not made for: it draws noise."""
    config = _config(base)
    if name == "base" or not config:  # without its settings the base is refused when it is loaded
        return {}
    usable = usable_samplers(base)
    if name not in usable:
        kind = "draws by flow matching" if _is_flow(config) else f"is made for {config.get('_class_name')}"
        raise Refused(f"the sampler {name!r} draws noise with {base.name}, which {kind}", f"Use one of: {', '.join(usable)}.")
    kind, extra = _SCHEDULERS[name]
    plain = {setting: value for setting, value in _PLAIN.get(kind, {}).items() if setting not in extra}
    otherwise = any(config.get(setting, value) != value for setting, value in plain.items())  # which once went into this one too
    return ({"sampler": "flow"} if _is_flow(config) else {}) | ({"set": "by its name"} if otherwise else {})


def usable_samplers(base: Path) -> tuple[str, ...]:
    """The names of the samplers that can draw with a base model, by its scheduler's settings; "base" always can."""
    config = _config(base)
    if not _is_flow(config):
        kind = str(config.get("_class_name"))
        able = getattr(getattr(diffusers, kind, None), "_compatibles", ())
        return ("base", *(name for name, (other, _) in _SCHEDULERS.items() if other in able or kind in _OF_FEW_STEPS))
    plain = config.get("_class_name") in (*_OF_FLOW, *(_SCHEDULERS[name][0] for name in _FLOWING))
    if not plain or any(config.get(setting) for setting in _OTHERWISE):
        return ("base",)
    shifted = bool(config.get("use_dynamic_shifting"))
    # DPM++ takes a shift by the picture's size only where it is told to expect one, and of one kind
    stubborn = config.get("time_shift_type", "exponential") != "exponential" if shifted else _kind(base) == _SHIFTING
    return ("base", *(name for name in _FLOWING if name != "DPM++ 2M" or not stubborn))


def own_sampler(base: Path) -> str:
    """What a base model's own sampler is called: the name that people know of its class, or else the class' own."""
    config = _config(base)
    kind = str(config.get("_class_name") or "unknown")
    named = [
        (len(extra), name)
        for name, (other, extra) in _SCHEDULERS.items()
        if other == kind and all(config.get(setting) == value for setting, value in extra.items())
    ]
    return max(named)[1] if named else kind.removesuffix("Scheduler")


def calls(base: Path, sampling: Sampling) -> int:
    """How often the denoiser is asked for one picture."""
    config = _config(base)
    kind = str(config.get("_class_name")) if sampling.scheduler == "base" else _SCHEDULERS[sampling.scheduler][0]
    if kind == "PNDMScheduler":  # the first steps are taken by Runge-Kutta, of four parts each, unless that is skipped
        return sampling.steps + (1 if config.get("skip_prk_steps") else 9)
    order: int = getattr(getattr(diffusers, kind, None), "order", 1)
    return sampling.steps * order - (order - 1)  # the last step has one part


def is_guided(base: Path, sampling: Sampling) -> bool:
    """Whether each call computes the picture twice, without and with the prompt. Flux and distilled UNets take the guidance as a number."""
    distilled = _settings(base / "unet" / "config.json").get("time_cond_proj_dim") is not None
    return sampling.guidance > 1 and not distilled and _kind(base) != "FluxPipeline"


def _is_flow(config: Mapping[str, Any]) -> bool:
    return str(config.get("_class_name")).startswith("FlowMatch") or bool(config.get("use_flow_sigmas"))


def _shift(config: Mapping[str, Any]) -> float:
    return float(config.get("flow_shift", config.get("shift", 1.0)))


def _kind(base: Path) -> object:
    return _settings(base / "model_index.json").get("_class_name")


def _config(base: Path) -> dict[str, Any]:
    return _settings(base / "scheduler" / "scheduler_config.json")


def _settings(file: Path) -> dict[str, Any]:
    """A table of settings, an empty one where it cannot be read."""
    with suppress(Unreadable):
        return dict(read_json_table(file))
    return {}
