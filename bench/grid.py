"""What a grid costs: on the demo against two peers, and on the full-size SD 1.5 architecture with random weights.

Peers: the origin's way (each converted pipeline is loaded, then draws one picture after another), and diffusers' hotswap of LoRA files
(the base is loaded once, then one picture after another). All run with the same number of threads, imports left aside.
CMP_BENCH_DEVICE=cuda draws on a card, in half precision as we and people do there.
"""

from __future__ import annotations

import json
import shutil
import statistics
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from convert import make_base, make_dump
from report import DEVICE, ON_CARD, Figure, child, interleaved, on_card, spread, write_each

ROUNDS = 2
PAIRS = 1 if ON_CARD else 3  # of a grid and the same again: they take seconds
PROMPTS = ("a red casual shoe", "a blue casual shoe", "a green star", "a small yellow circle on a mint background")
SEEDS, STEPS, CFG, WIDE = (0, 1), 12, 4.0, 512 if ON_CARD else 256
MANY = 8  # seeds of two checkpoints, drawn on a card with the full-size architecture
FEWER = PROMPTS[:2], SEEDS[:1]  # for the peers and `exact`, whose pictures each take the same
RUN = "lora_casual_shoes_3000steps_full"

COMMON = """
import json, os, sys, time
from pathlib import Path
import torch
device = os.environ["CMP_BENCH_DEVICE"]
on_card = device != "cpu"
def wait():
    if on_card:
        torch.cuda.synchronize()
def peak():
    if on_card:
        return torch.cuda.memory_allocated()
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
def tell(**said):
    print(json.dumps(said))
"""
OURS = (
    COMMON
    + """
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.settings import Settings
from cmp.workbench import Workbench
import cmp.engine.draw
home, mode, steps, cfg, first, prompts, seeds, run = sys.argv[1:]
bench = Workbench(Settings(Path(home), device=device))
run, _ = bench.find(run)
chosen = tuple(c for c in run.checkpoints if c.step)[: int(first)]
sampling = Sampling(int(steps), float(cfg))
started = time.perf_counter()
spec = GridSpec(chosen, tuple(map(Prompt, json.loads(prompts))), tuple(json.loads(seeds)), samplings=(sampling,), mode=mode)
tiles = [item for item in bench.draw_grid(spec, [run]) if isinstance(item, Tile)]
seconds = time.perf_counter() - started
assert not [tile.fault for tile in tiles if tile.fault]
tell(seconds=seconds, cells=len(tiles), new=sum(not tile.reused for tile in tiles))
"""
)
HALF = (
    COMMON
    + """
import numpy as np
from PIL import Image
import cmp.engine.pipeline, cmp.engine.studio
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.settings import Settings
from cmp.workbench import Workbench
home, kind, steps, cfg, prompts, seeds, run = sys.argv[1:]
for module in (cmp.engine.pipeline, cmp.engine.studio):
    module.choose_dtype = lambda device, base: getattr(torch, kind)
bench = Workbench(Settings(Path(home), device=device))
run, _ = bench.find(run)
asked = (run.checkpoints[::3], tuple(map(Prompt, json.loads(prompts))), tuple(json.loads(seeds)))
def draw(mode):
    spec = GridSpec(*asked, samplings=(Sampling(int(steps), float(cfg)),), mode=mode)
    tiles = [item for item in bench.draw_grid(spec, [run]) if isinstance(item, Tile)]
    return {tile.cell: np.asarray(Image.open(tile.path)).astype(int) for tile in tiles}
fast, exact = draw("fast"), draw("exact")
off = np.stack([abs(fast[cell] - exact[cell]) for cell in exact])
tell(most=int(off.max()), share=float((off > 1).mean()))
"""
)
# `what` is a list of pipelines to load one after another, or of LoRA files to swap on one base
PEER = (
    COMMON
    + """
from diffusers import StableDiffusionPipeline
base, what, steps, cfg, prompts, seeds = sys.argv[1:]
def load(folder):
    half = {"dtype": torch.float16} if on_card else {}
    pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None, **half).to(device)
    pipe.set_progress_bar_config(disable=True)
    return pipe
started = time.perf_counter()
pipe = load(base) if base else None
for number, path in enumerate(json.loads(what)):
    if base:
        pipe.load_lora_weights(path, adapter_name="one", **({"hotswap": True} if number else {}))
    else:
        pipe = load(path)
    for prompt in json.loads(prompts):
        for seed in json.loads(seeds):
            generator = torch.Generator("cpu").manual_seed(seed)
            pipe(prompt, num_inference_steps=int(steps), guidance_scale=float(cfg), generator=generator).images[0]
tell(seconds=time.perf_counter() - started)
"""
)
SWITCH = (
    COMMON
    + """
from diffusers import StableDiffusionPipeline
from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.progress import run_through
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.disk.ready import Answers
from cmp.engine.dressing import dress
home, runs, bases, wide, rounds, steps = sys.argv[1:]
bench = Workbench(Settings(Path(home), (Path(runs),), (Path(bases),), device=device))
run, _ = bench.find("style")
files = []
for checkpoint in run.checkpoints[:2]:
    files.append(Path(home) / f"{checkpoint.key}.safetensors")
    run_through(bench.convert(bench.plan_conversion(checkpoint.id, "lora", output=files[-1])))
sampling = Sampling(int(steps), 7.5, int(wide), int(wide), "DDIM")
def spec(*checkpoints, seed=0):
    return GridSpec(checkpoints, (Prompt("a photo"),), (seed,), samplings=(sampling,))
def drawn(mode, seeds):
    began = time.perf_counter()
    asked = GridSpec(run.checkpoints[:2], (Prompt("a photo"),), tuple(seeds), samplings=(sampling,), mode=mode)
    assert not [item.fault for item in bench.draw_grid(asked, [run]) if isinstance(item, Tile) and item.fault]
    return time.perf_counter() - began
list(bench.draw_grid(spec(None), [run]))
alone = peak()
many = {mode: [drawn(mode, range(first, first + count)) for first in (100, 200)]
        for mode, count in (("fast", MANY), ("exact", 2))} if on_card else {}
worn = bench.studio()._worn
taken = {"unet": 0.0, "aside": 0.0}
def timed(model, name, method="forward"):
    call = getattr(model, method)
    def run_timed(*args, **more):
        wait()
        began = time.perf_counter()
        try:
            return call(*args, **more)
        finally:
            wait()
            taken[name] += time.perf_counter() - began
    setattr(model, method, run_timed)
timed(worn.pipe.unet, "unet"); timed(worn.pipe.text_encoder, "aside"); timed(worn.pipe.vae, "aside", "decode")
list(bench.draw_grid(spec(*run.checkpoints[:2]), [run]))  # the proof of the frozen base, once per checkpoint, is conversion's
with_adapters = peak()
for name in taken: taken[name] = 0.0
started = time.perf_counter()
tiles = [item for item in bench.draw_grid(spec(*run.checkpoints[:2], seed=1), [run]) if isinstance(item, Tile)]
grid = time.perf_counter() - started
preparing = bench._preparing(spec(*run.checkpoints[:2]), (run,), Answers())
ones = [preparing.prepare(cell) for cell in spec(*run.checkpoints[:2]).cells()]
switches = []
for number in range(2 * int(rounds)):
    bench.studio()._adapters.clear()
    began = time.perf_counter()
    dress(worn, ones[number % 2], bench.studio())
    switches.append(time.perf_counter() - began)
adapter = sum(v.nbytes for v in bench.studio()._adapters[ones[1].clothes.weights].values())
worn.wear_nothing(); worn._undress()
del worn.pipe.unet.forward, worn.pipe.text_encoder.forward, worn.pipe.vae.decode
loads, swaps, plain = [], [], []
for number in range(int(rounds)):
    began = time.perf_counter()
    worn.pipe.load_lora_weights(str(files[number % 2]), adapter_name="one")
    loads.append(time.perf_counter() - began)
    began = time.perf_counter()
    worn.pipe.load_lora_weights(str(files[1 - number % 2]), adapter_name="one", hotswap=True)
    swaps.append(time.perf_counter() - began)
    if on_card:  # two checkpoints in turn, one picture after another
        wait()
        began = time.perf_counter()
        for seed in range(2):
            worn.pipe("a photo", num_inference_steps=int(steps), guidance_scale=7.5, width=int(wide), height=int(wide),
                      generator=torch.Generator("cpu").manual_seed(seed))
        wait()
        plain.append(time.perf_counter() - began)
    worn.pipe.unload_lora_weights()
tell(switches=switches, loads=loads, swaps=swaps, grid=grid, unet=taken["unet"], aside=taken["aside"], alone=alone, peak=with_adapters,
     adapter=adapter, many=many, plain=plain)
"""
)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-grid-") as folder:
        write_each(on_card("Drawing a grid on the demo: 6 checkpoints × 2 prompts, 12 steps"), beside_peers(Path(folder)))
        write_each(on_card("A larger grid on the demo: 6 checkpoints × 4 prompts × 2 seeds, 12 steps"), once_more(Path(folder) / "home"))
        write_each(on_card(f"Drawing with the SD 1.5 architecture, {WIDE} × {WIDE}"), at_full_size(Path(folder)))


def ours(home: Path, mode: str, first: int = 6, keep: bool = False, asked: tuple[object, object] = (PROMPTS, SEEDS)) -> dict[str, float]:
    """What drawing with the first checkpoints took; the cells of earlier go before unless they are to be kept."""
    if not keep:
        shutil.rmtree(home / "cells", ignore_errors=True)
    return child(OURS, home, mode, STEPS, CFG, first, *map(json.dumps, asked), RUN)


def beside_peers(place: Path) -> Iterator[Figure]:
    home = place / "home"
    pipelines, files = prepare(home, place)
    base = str(home / "demo" / "bases" / "cmp-demo" / "tiny-shapes")
    said: dict[str, list[dict[str, float]]] = {"fast": [], "exact": [], "origin": [], "hotswap": []}
    asked = (STEPS, CFG, *map(json.dumps, FEWER))
    interleaved(
        ROUNDS,
        lambda: said["fast"].append(ours(home, "fast", asked=FEWER)),
        lambda: said["hotswap"].append(child(PEER, base, json.dumps(files), *asked)),
        lambda: said["origin"].append(child(PEER, "", json.dumps(pipelines), *asked)),
        lambda: said["exact"].append(ours(home, "exact", asked=FEWER)),
    )
    seconds = {name: [one["seconds"] for one in told] for name, told in said.items()}
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    yield Figure(
        "`fast`, at most a quarter of the origin's way", middle["fast"], middle["origin"] / 4, "s", f"origin {spread(seconds['origin'])}"
    )
    yield Figure("`fast`, at most half of hotswap", middle["fast"], middle["hotswap"] / 2, "s", f"hotswap {spread(seconds['hotswap'])}")
    yield Figure("`exact`, at most hotswap", middle["exact"], middle["hotswap"], "s", f"hotswap {spread(seconds['hotswap'])}")
    few = STEPS if ON_CARD else STEPS // 3  # half precision is slow on a processor
    for kind, limit, steps in (("float32", None if ON_CARD else 1.0, STEPS), ("float16", None, few), ("bfloat16", None, few)):
        shutil.rmtree(home / "cells", ignore_errors=True)
        told = child(HALF, home, kind, steps, *asked[1:], RUN)
        more = f"{100 * told['share']:.2g} % of the values by more than one"
        yield Figure(f"`fast` against `exact` in {kind}, {steps} steps: most that a value is off", told["most"], limit, "grey levels", more)


def once_more(home: Path) -> Iterator[Figure]:
    first, again, more = [], [], []
    for _ in range(PAIRS):
        first.append(ours(home, "fast")["seconds"])
        again.append(ours(home, "fast", keep=True))
        ours(home, "fast", first=5)
        more.append(ours(home, "fast", keep=True))
    assert {told["new"] for told in again} == {0} and {told["new"] for told in more} == {8}
    whole, same = statistics.median(first), [told["seconds"] for told in again]
    yield Figure("the same grid again, at most a hundredth", statistics.median(same), whole / 100, "s", f"first {spread(first)}")
    column = statistics.median(told["seconds"] for told in more)
    limit = 1.25 * (whole / 6 + loading(home))
    yield Figure("one checkpoint more costs its column (a sixth, and the base's loading)", column, limit, "s")


def loading(home: Path) -> float:
    """Seconds until the base is in memory and one picture of one step is drawn."""
    return child(OURS, home, "fast", 1, 1.0, 1, json.dumps(["load"]), "[0]", RUN)["seconds"]


def prepare(home: Path, place: Path) -> tuple[list[str], list[str]]:
    """The demo, and what the peers need of it: a converted pipeline and a LoRA file for each step."""
    from cmp.core.progress import run_through
    from cmp.settings import Settings
    from cmp.workbench import Workbench

    bench = Workbench(Settings(home, device=DEVICE))
    run, _ = bench.find(RUN)
    made: dict[str, list[str]] = {"pipeline": [], "lora": []}
    for checkpoint in run.checkpoints:
        if checkpoint.step:
            for form, ending in (("pipeline", ""), ("lora", ".safetensors")):
                target = place / form / f"{checkpoint.key}{ending}"
                run_through(bench.convert(bench.plan_conversion(checkpoint.id, form, output=target)))
                made[form].append(str(target))
    return made["pipeline"], made["lora"]


def at_full_size(place: Path) -> Iterator[Figure]:
    base = make_base(place / "bases" / "sd15")
    dump = make_dump(base, place / "outputs" / "style")
    another(dump, dump.parents[1] / "checkpoint-1000" / dump.name)
    script = SWITCH.replace("MANY", str(MANY))
    told = child(script, place / "home15", place / "outputs", base.parent, WIDE, 5, 20 if ON_CARD else 4)
    switches = told["switches"][1:]  # the first attaches
    peers = f"load {spread(told['loads'])}, hotswap {spread(told['swaps'])}"
    yield Figure("switching checkpoints, read-back included, median of 9", statistics.median(switches), 0.05, "s", peers)
    around = told["grid"] - told["unet"] - told["aside"]
    yield Figure("around the denoiser, text encoding and decoding aside", 100 * around / told["grid"], 3, "%", f"grid {told['grid']:.1f} s")
    more = (told["peak"] - told["alone"]) / told["adapter"]
    yield Figure("memory above the base alone, in adapters", more, 2, "×", f"an adapter is {told['adapter'] / 1e6:.1f} MB")
    if ON_CARD:
        alone = statistics.median(told["plain"]) / 2
        peer = f"diffusers with one adapter on {alone:.3f} s"
        for mode, count, limit in (("fast", 2 * MANY, alone / 2), ("exact", 4, 1.1 * alone)):
            yield Figure(f"a picture of {count}, 20 steps, `{mode}`", min(told["many"][mode]) / count, limit, "s", peer)


def another(dump: Path, target: Path) -> None:
    """The dump of a later step: the same frozen weights, another adapter."""
    target.parent.mkdir()
    shutil.copyfile(dump, target)
    with target.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        for name, told in json.loads(file.read(length)).items():
            if ".lora_B." in name:
                start, end = told["data_offsets"]
                file.seek(8 + length + start)
                file.write((np.random.default_rng(1).standard_normal((end - start) // 4) * 0.02).astype("<f4").tobytes())


if __name__ == "__main__":
    main()
