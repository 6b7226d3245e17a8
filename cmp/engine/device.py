"""Which device and number type to compute with, and what counts when two machines' pictures are to be equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
import transformers

from cmp.core.present import size_text
from cmp.errors import BadInput

_SHARE = 0.75  # of a card's free memory that a model may take; the rest is for drawing
# raised by every change of ours that changes pixels, so that older pictures are not taken for new ones
REVISION = "1"
_REVISIONS = {"cuda": "2"}  # of what changed them on one kind of device alone
_RAN_OUT = ("not enough memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")  # a processor's, CUDA's


def choose_device(wanted: str) -> torch.device:
    """The device called `wanted`; "auto" takes CUDA, then Apple's MPS, then the CPU. Raises BadInput for one that is not there."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as fault:
        raise BadInput(f"the device {wanted!r} cannot be used here", "Set CMP_DEVICE to auto, cpu, cuda, cuda:1 or mps.") from fault
    return device


def choose_dtype(device: torch.device, base: Path | None = None) -> torch.dtype:
    """Half precision on CUDA, where base models are made for it; full precision elsewhere.

    Models with a transformer (SD 3, Flux) were trained in bfloat16, and some of their numbers are too large for float16.
    """
    if device.type != "cuda":
        return torch.float32
    wide = base is not None and (base / "transformer").is_dir() and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if wide else torch.float16


def fits(needed: int, free: int) -> bool:
    """Whether a model of so many bytes can stay on a card with so many free, and leave room to draw."""
    return needed <= _SHARE * free


def settle(pipe: Any, device: torch.device) -> bool:
    """Puts a pipeline where it computes; gives whether it lies in the computer's memory and visits the card part by part.

    Nothing is laid out otherwise than by diffusers' plain call: with the channels last, convolutions round otherwise, and on an H200 a
    picture of 512 × 512 took 0.97 s instead of 0.59 s, in a batch of 16 0.155 s instead of 0.139 s.
    """
    if device.type == "cuda":
        models = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
        needed = sum(tensor.numel() * tensor.element_size() for model in models for tensor in (*model.parameters(), *model.buffers()))
        if not fits(needed, torch.cuda.mem_get_info(device)[0]):
            pipe.enable_model_cpu_offload(device=device)
            return True
    pipe.to(device)
    return False


def without_memory(fault: BaseException) -> bool:
    """Whether what went wrong is that the memory ran out, on whichever device; libraries raise it as a RuntimeError too."""
    return isinstance(fault, torch.OutOfMemoryError | MemoryError) or any(words in str(fault) for words in _RAN_OUT)


def circumstances(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """What changes pixels besides weights and settings, for a cell's key."""
    return {
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__.partition("+")[0],
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "mode": "exact",
        "form": "adapter",
        "engine": _REVISIONS.get(device.type, REVISION),
    }


def card_uuid(wanted: str) -> str:
    """By what the driver knows the CUDA device that `choose_device` takes: its number may be another there."""
    return str(torch.cuda.get_device_properties(choose_device(wanted)).uuid)


def realign(model: torch.nn.Module) -> None:
    """Moves CPU tensors to 64-byte aligned memory.

    Tensors that lie in a mapped safetensors file start at odd addresses, for which CPU kernels take other paths: the same weights then
    give results 4e-7 apart, sometimes one grey level in a picture. Aligned, equal weights give equal bits.
    """
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.device.type == "cpu" and tensor.data_ptr() % 64:
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)


def describe_devices() -> list[str]:
    """What there is to compute with, in words; of cards also how much they hold, and in which numbers they draw."""
    found = []
    for i in range(torch.cuda.device_count()):
        card, usual = torch.cuda.get_device_properties(i), str(choose_dtype(torch.device("cuda", i))).removeprefix("torch.")
        wide = ", models with a transformer in bfloat16" if torch.cuda.is_bf16_supported() else ""
        found.append(f"cuda:{i} {card.name} ({size_text(card.total_memory)}; draws in {usual}{wide})")
    return [*found, *(["mps"] if torch.backends.mps.is_available() else []), f"cpu ({torch.get_num_threads()} threads)"]


def finds_cuda() -> bool:
    """Whether torch can compute on an NVIDIA card here."""
    return bool(torch.version.cuda) and torch.cuda.is_available()


def memory_of_cards() -> list[dict[str, object]]:
    """Free and total bytes of each card that this process computes on already; asking another would take memory there."""
    if not torch.cuda.is_initialized():
        return []
    used = ((i, torch.cuda.mem_get_info(i)) for i in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(i))
    return [{"name": torch.cuda.get_device_name(i), "free_bytes": free, "total_bytes": total} for i, (free, total) in used]
