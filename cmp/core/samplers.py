"""What other programs call our schedulers.

A1111: modules/sd_samplers_kdiffusion.py, where "DPM++ 2M" without a schedule type is drawn with Karras' sigmas since version 1.9, and
"PLMS" is what diffusers calls PNDM. ComfyUI: comfy/samplers.py. kohya: library/train_util.py. OneTrainer: util/enum/NoiseScheduler.py.
"""

from __future__ import annotations

# ours → A1111's sampler and schedule type, None for what it takes by itself
_A1111: dict[str, tuple[str, str | None]] = {
    "DDIM": ("DDIM", None),
    "Euler": ("Euler", None),
    "Euler a": ("Euler a", None),
    "DPM++ 2M": ("DPM++ 2M", "Uniform"),
    "DPM++ 2M Karras": ("DPM++ 2M", "Karras"),
    "Heun": ("Heun", None),
    "UniPC": ("UniPC", None),
    "PNDM": ("PLMS", None),
}
_FROM_A1111 = {sampler.casefold(): name for name, (sampler, _) in _A1111.items() if name != "DPM++ 2M Karras"}
_COMFY = {
    "ddim": "DDIM",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "heun": "Heun",
    "uni_pc": "UniPC",
}
KOHYA = {
    "ddim": "DDIM",
    "pndm": "PNDM",
    "euler": "Euler",
    "k_euler": "Euler",
    "euler_a": "Euler a",
    "k_euler_a": "Euler a",
    "heun": "Heun",
    "dpmsolver++": "DPM++ 2M",
}
ONETRAINER = {
    "DDIM": "DDIM",
    "EULER": "Euler",
    "EULER_A": "Euler a",
    "DPMPP": "DPM++ 2M",
    "DPMPP_KARRAS": "DPM++ 2M Karras",
    "UNIPC": "UniPC",
}


def to_a1111(scheduler: str) -> tuple[str | None, str | None]:
    """A1111's sampler and schedule type; None for the sampler where it has no name for ours, as for the base model's own."""
    return _A1111.get(scheduler, (None, None))


def from_a1111(sampler: str, schedule: str | None) -> tuple[str | None, str | None]:
    """Our scheduler, None if there is none like it, and in words what of it is not restored, None if all is.

    Before version 1.9 the schedule stood behind the sampler's name.
    """
    name, kind = sampler.strip().casefold(), (schedule or "").strip().casefold()
    if not kind and name.endswith(" karras"):
        name, kind = name.removesuffix(" karras"), "karras"
    found = _FROM_A1111.get(name)
    if found is None:
        return None, f"the sampler {sampler!r}"
    if found == "DPM++ 2M" and kind in ("karras", "automatic"):
        return "DPM++ 2M Karras", None
    return found, None if kind in ("", "automatic", "uniform") else f"the schedule type {schedule or 'Karras'!r} of {found}"


def from_comfy(sampler: str, schedule: str) -> tuple[str | None, str | None]:
    """Our scheduler and what of it is not restored, as from_a1111."""
    found = _COMFY.get(sampler)
    if found is None:
        return None, f"the sampler {sampler!r}"
    if found == "DPM++ 2M" and schedule == "karras":
        return "DPM++ 2M Karras", None
    plain = ("normal", "ddim_uniform") if found == "DDIM" else ("normal",)
    return found, None if schedule in plain else f"the schedule {schedule!r} of {found}"
