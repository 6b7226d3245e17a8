"""What converting a full-size SD 1.5 checkpoint costs: time, memory, bytes written. The peer loads base and state, merges and saves.

The checkpoint is an Accelerate dump of a UNet wrapped by PEFT (rank 16), with random weights that this script makes: 3.4 GB beside a base
of 4.3 GB. Everything is read from the page cache, by us and by the peers alike.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from report import ROOT, Figure, child, interleaved, spread, write
from safetensors.numpy import load_file, save_file

PAIRS = 5
RANK, ALPHA = 16, 32
UNET = {
    "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}  # fmt: skip
VAE = {
    "_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4, "sample_size": 512,
}  # fmt: skip
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "hidden_act": "quick_gelu"}
MADE_OF = {
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "DDIMScheduler"],
    "safety_checker": [None, None], "feature_extractor": [None, None],
}  # fmt: skip
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")

# run in a process of its own: prints seconds and the peak of memory, in bytes, above what the imports took
OURS = """
import json, sys, time
from pathlib import Path
from cmp.core.progress import run_through
from cmp.settings import Settings
from cmp.workbench import Workbench
import cmp.engine.convert, cmp.engine.verify, cmp.disk.lora_file, cmp.disk.planning
home, runs, bases, form, output = sys.argv[1:]
bench = Workbench(Settings(Path(home), (Path(runs),), (Path(bases),)))
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
(target,) = [f"{run.id}@500" for run in bench.library().runs]
started = time.perf_counter()
plan = bench.plan_conversion(target, form, output=Path(output), force=True)
done = run_through(bench.convert(plan))
seconds = time.perf_counter() - started
after = peak()
print(json.dumps({"seconds": seconds, "memory": after - before, "all": after, "checks": done.checks}))
"""
PEER = """
import json, sys, time
import torch, diffusers
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
base, dump, output = sys.argv[1:]
started = time.perf_counter()
pipe = StableDiffusionPipeline.from_pretrained(base, local_files_only=True, safety_checker=None)
unet = get_peft_model(pipe.unet, LoraConfig(r=16, lora_alpha=32, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
unet.load_state_dict(load_file(dump), strict=True)
pipe.unet = unet.merge_and_unload()
pipe.save_pretrained(output)
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"seconds": time.perf_counter() - started, "memory": peak}))
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-convert-") as folder:
        place = Path(folder)
        base, run = make_base(place / "bases" / "sd15"), place / "outputs" / "style"
        dump = make_dump(base, run)
        for file in (base / "unet" / "diffusion_pytorch_model.safetensors", dump):
            subprocess.run(["cat", file], stdout=subprocess.DEVNULL, check=True)  # into the page cache
        write("Converting a full-size SD 1.5 checkpoint", list(measure(place, base, dump)))


def measure(place: Path, base: Path, dump: Path) -> Iterator[Figure]:
    said: list[dict[str, object]] = []

    def ours(form: str, output: Path) -> None:
        said.append(child(OURS, place / "home", place / "outputs", base.parent, form, output))

    peer = child(PEER, base, dump, place / "peer")
    shutil.rmtree(place / "peer")
    told = f"{peer['seconds']:.1f} s, {peer['memory'] / 1e9:.1f} GB, 4.3 GB written"
    ours("lora", place / "first.safetensors")
    first = said[-1]
    ours("lora", place / "again.safetensors")
    yield Figure("`lora`: extraction, once the base is proven", said[-1]["seconds"], 0.3, "s", told)
    yield Figure(
        "`lora`: memory above what the imports take",
        max(s["memory"] for s in said) / 1e6,
        400,
        "MB",
        f"all in all {said[-1]['all'] / 1e6:.0f} MB",
    )
    yield from proof(place, base, dump, first["seconds"] - said[-1]["seconds"])
    yield from pipeline(place, base, said, ours)


def proof(place: Path, base: Path, dump: Path, seconds: float) -> Iterator[Figure]:
    """The proof of the frozen tensors against `cmp` of two equal files of that size."""
    copy = place / "copy"
    shutil.copyfile(dump, copy)
    (times,) = interleaved(3, lambda: subprocess.run(["cmp", dump, copy], check=True))
    copy.unlink()
    limit = 1.5 * statistics.median(times)
    yield Figure("proof that 686 frozen tensors are the base's", seconds, round(limit, 2), "s", f"cmp {spread(times)}")


def pipeline(place: Path, base: Path, said: list[dict[str, object]], ours) -> Iterator[Figure]:
    unet = base / "unet" / "diffusion_pytorch_model.safetensors"
    output, copy = place / "outputs" / "style" / "made", place / "outputs" / "style" / "copy"

    def peer() -> None:
        subprocess.run(["cp", unet, copy], check=True)
        subprocess.run(["sync", "-f", copy], check=True)

    def convert() -> None:
        shutil.rmtree(output, ignore_errors=True)
        ours("pipeline", output)

    start = len(said)
    _, copying = interleaved(PAIRS, convert, peer)
    mine = [float(s["seconds"]) for s in said[start:]]
    written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file() and file.stat().st_nlink == 1)
    limit = 2 * statistics.median(copying)
    yield Figure(
        f"`pipeline`, read back, median of {PAIRS} pairs", statistics.median(mine), round(limit, 2), "s", f"cp and sync {spread(copying)}"
    )
    yield Figure("`pipeline`: memory above what the imports take", max(s["memory"] for s in said[start:]) / 1e9, 1, "GB")
    yield Figure("`pipeline`: bytes written beyond the UNet's", (written - unet.stat().st_size) / 1e6, 1, "MB")


def make_base(folder: Path) -> Path:
    """A whole SD 1.5 pipeline of random weights."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        models = {
            "unet": UNet2DConditionModel.from_config(UNET), "vae": AutoencoderKL.from_config(VAE),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)),
        }  # fmt: skip
    for name, model in models.items():
        part = folder / name
        part.mkdir(parents=True)
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        tensors = {n: noise(n, tuple(t.shape)) for n, t in model.state_dict().items() if "position_ids" not in n}
        save_file(tensors, part / f"{stem}.safetensors", {"format": "pt"})
        settings = TEXT | {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}
        (part / "config.json").write_text(json.dumps(settings if name == "text_encoder" else dict(model.config)))
    DDIMScheduler().save_pretrained(folder / "scheduler")
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **MADE_OF}))
    return folder


def make_dump(base: Path, run: Path) -> Path:
    """What accelerate's save_state leaves of that UNet with an adapter, and the adapter's config as the run's end leaves it."""
    own = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    modules = [name.removesuffix(".weight") for name in own if name.removesuffix(".weight").endswith(TARGETS) and name.endswith(".weight")]
    adapted = set(modules)
    dump = {}
    for name, values in own.items():
        module, _, kind = name.rpartition(".")
        dump[f"base_model.model.{module}.base_layer.{kind}" if module in adapted else f"base_model.model.{name}"] = values
    for module in modules:
        out, width = own[f"{module}.weight"].shape
        dump[f"base_model.model.{module}.lora_A.default.weight"] = noise(module, (RANK, width))
        dump[f"base_model.model.{module}.lora_B.default.weight"] = noise(f"{module}B", (out, RANK))
    folder = run / "checkpoints" / "checkpoint-500"
    folder.mkdir(parents=True)
    save_file(dump, folder / "model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(TARGETS), "base_model_name_or_path": str(base)}
    (run / "lora_weights").mkdir()
    (run / "lora_weights" / "adapter_config.json").write_text(json.dumps(config))
    logs = run / "logs" / "run" / "1795430000.5"
    logs.mkdir(parents=True)
    (logs / "hparams.yml").write_text(f"pretrained_model_name_or_path: {base}\nlora_alpha: {ALPHA}\nrank: {RANK}\n")
    return folder / "model.safetensors"


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random numbers, a million at a time again and again: making billions would take longer than all that is measured."""
    start = sum(name.encode()) % 1000
    count = int(np.prod(shape))
    return np.resize(TILE[start:], count).reshape(shape)


TILE = (np.random.default_rng(0).standard_normal(1 << 20) * 0.02).astype("<f4")
TOKENIZER = ROOT / "tests" / "data" / "corpus" / "bases" / "sd_nano" / "tokenizer"

if __name__ == "__main__":
    main()
