"""What measuring the loss costs, and what it tells: on the demo's overfitted run, whose held-out images were drawn from the same recipe.

Peer: the plain loop that people write: for each checkpoint diffusers' pipeline is loaded and wears it, then each image and draw is one
call of the UNet. Both run with the same number of threads on the same images, noise and timesteps; what is compared is the processor's
time, since other programs take their share of the clock's. CMP_BENCH_DEVICE=cuda measures on a card, in half precision; there the clock's
time counts.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from report import DEVICE, ON_CARD, Figure, child, on_card, spread, write_each

RUN = "lora_casual_shoes_3000steps_full"
ROUNDS = 1 if ON_CARD else 2
FEW, USUAL, MANY = 4, 16, 320  # draws an image
SEEDS = (1, 2, 3)

COMMON = """
import json, os, sys, time
from pathlib import Path
import torch
device = os.environ["CMP_BENCH_DEVICE"]
spent = time.process_time if device == "cpu" else time.perf_counter
def tell(**said):
    print(json.dumps(said))
"""
OURS = (
    COMMON
    + """
from cmp.core.measured import MeasureSpec, Measured
from cmp.settings import Settings
from cmp.workbench import Workbench
import cmp.engine.measuring
home, data, draws, seed = sys.argv[1:]
bench = Workbench(Settings(Path(home), device=device))
run, _ = bench.find("lora_casual_shoes_3000steps_full")
spec = MeasureSpec(held_out=Path(data) / "held_out", training=Path(data) / "train", draws=int(draws), seed=int(seed))
plan = bench.plan_measure(run, spec)
began, busy = time.perf_counter(), spent()
found = [item for item in bench.measure(run, spec) if isinstance(item, Measured)]
seconds, busy = time.perf_counter() - began, spent() - busy
judged = {rule: bench.judge(run, rule) for rule in ("measured", "training-loss")}
tell(
    seconds=seconds, busy=busy, expected=plan.seconds, values=len(found), new=sum(not one.reused for one in found),
    means={one.checkpoint_id.rpartition("@")[2]: float(one.values.mean()) for one in found if one.metric == "loss"},
    **{rule: [verdict.best, [name.rpartition("@")[2] for name in verdict.window], verdict.decides] for rule, verdict in judged.items()},
)
"""
)
PEER = (
    COMMON
    + """
import hashlib
import numpy as np
from diffusers import DDPMScheduler, StableDiffusionPipeline
from PIL import Image
from cmp.core.draws import Draws, timesteps
base, files, data, draws = sys.argv[1:]
draws = Draws(int(draws))
began = spent()
half = {} if device == "cpu" else {"dtype": torch.float16}
means = {}
with torch.no_grad():
    for key, file in json.loads(files).items():
        pipe = StableDiffusionPipeline.from_pretrained(base, local_files_only=True, safety_checker=None, **half).to(device)
        if file:
            pipe.load_lora_weights(file)
        schedule = DDPMScheduler.from_config(pipe.scheduler.config)
        for name in ("held_out", "train"):
            values = []
            for row in map(json.loads, (Path(data) / name / "metadata.jsonl").read_text().splitlines()):
                place = Path(data) / name / row["file_name"]
                digest = hashlib.sha256(place.read_bytes()).hexdigest()
                pixels = torch.from_numpy(np.asarray(Image.open(place).convert("RGB")).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
                x = pipe.vae.encode(pixels.to(device, pipe.vae.dtype)).latent_dist.mean.float() * pipe.vae.config.scaling_factor
                words = pipe.encode_prompt(row["text"], device, 1, False)[0]
                for at in np.ndindex(draws.bands, draws.each):
                    noise = torch.from_numpy(draws.noise(digest, *at, x.shape[1:]))[None].to(device)
                    t = torch.from_numpy(timesteps(draws.places(digest)[at][None], 1000)).to(device)
                    guess = pipe.unet(schedule.add_noise(x, noise, t).to(pipe.unet.dtype), t, words).sample.float()
                    values.append(float(((guess - noise) ** 2).mean()))
            if name == "held_out":
                means[key] = float(np.mean(values))
tell(busy=spent() - began, means=means)
"""
)


def speed_figures(work: Path) -> Iterator[Figure]:
    home = work / "home"
    demo, files = open_demo(home), {"base": None}
    for step in range(500, 3001, 500):
        files[str(step)] = str(convert(home, step))
    yield from speed(home, demo, files)


def open_demo(home: Path) -> Path:
    from cmp.disk.demo import open_demo as unpack

    return unpack(home).folder


def convert(home: Path, step: int) -> Path:
    """A checkpoint as a LoRA file, for diffusers to load."""
    from cmp.core.progress import run_through
    from cmp.settings import Settings
    from cmp.workbench import Workbench

    bench = Workbench(Settings(home, device=DEVICE))
    return run_through(bench.convert(bench.plan_conversion(f"{RUN}@{step}", "lora", output=home / f"{step}.safetensors"))).output


def speed(home: Path, demo: Path, files: dict[str, str | None]) -> Iterator[Figure]:
    ours, peers = [], []
    for turn in range(ROUNDS):
        mine = child(OURS, home, demo / "data", FEW, 0) if turn == 0 else child(OURS, again(home, turn), demo / "data", FEW, 0)
        assert mine["new"] == mine["values"] == 14
        peer = child(PEER, demo / "bases" / "cmp-demo" / "tiny-shapes", json.dumps(files), demo / "data", FEW)
        near = 5e-3 if ON_CARD else 1e-4
        assert all(abs(mine["means"][key] - peer["means"][key]) < near * peer["means"][key] for key in peer["means"]), (mine, peer)
        ours.append(mine["busy"])
        peers.append(peer["busy"])
    what = f"six checkpoints and the base on 24 held-out and 8 training images, {FEW} draws each, in parts of the plain loop's time"
    yield Figure(what, sum(ours) / sum(peers), 0.5, "×", f"{spread(peers)}, ours {spread(ours)}")
    known = child(OURS, home, demo / "data", FEW, 0)
    assert known["new"] == 0
    yield Figure("the same again, all of it known", known["seconds"], 2.0, "s", f"{ours[0]:.1f} s when it was new")


def again(home: Path, turn: int) -> Path:
    """Another home with the same demo, in which nothing was measured."""
    other = home.with_name(f"home-{turn}")
    open_demo(other)
    return other


def truth(home: Path, demo: Path) -> Iterator[Figure]:
    """Whether the windows of the usual draws leave out what is worse, and hold what many more draws call the best."""
    windows = {}
    for seed in SEEDS:
        found = child(OURS, home, demo / "data", USUAL, seed)
        windows[seed] = found["measured"][1]
        told = f"window {', '.join(sorted(windows[seed], key=int))}"
        wrong = ("500" in windows[seed]) + ("3000" in windows[seed])
        yield Figure(f"seed {seed}, {USUAL} draws: the first or the last step is in the window", wrong, 0, "mistakes", told)
        named = found["training-loss"][0] is not None or found["training-loss"][2]
        yield Figure(f"seed {seed}: the training loss names a best", float(named), 0, "mistakes", "never")
        yield Figure(f"seed {seed}: seconds that it took", found["seconds"], 120, "s", f"{found['expected'] or 0:.0f} s expected")
    best = child(OURS, home, demo / "data", MANY, 99)["measured"][1][0]
    missed = sum(best not in window for window in windows.values())
    yield Figure(f"windows without the step that {MANY} draws call the best", missed, 0, "mistakes", f"step {best}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-measure-") as made:
        write_each(on_card("What measuring the loss costs, on the demo"), speed_figures(Path(made)))
        write_each(on_card("Measuring the loss on the demo"), truth(Path(made) / "home", open_demo(Path(made) / "home")))
