"""How long a scan of 1,000 runs of 20 checkpoints takes; the peer is `find`, which tells names and sizes as well."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from report import Figure, interleaved, spread, write

from cmp.disk.scan import Scanner
from cmp.disk.store import Store
from cmp.workbench.lookout import Lookout

RUNS, STEPS, ROUNDS = 1000, 20, 5
LONGEST = 3600.0  # seconds after which reading on in the background has failed


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "training" / "outputs"
        files = make_tree(tree)
        find = ["find", str(tree), "-printf", "%p %s\n"]

        def peer() -> None:
            subprocess.run(find, check=True, stdout=subprocess.DEVNULL)

        peer()  # fills the cache of names
        first, theirs = interleaved(ROUNDS, lambda: Scanner().scan([tree], headers=False), peer)
        headers, served, runs = read_all(tree, Path(folder) / "home")
        again, theirs_again = interleaved(ROUNDS, lambda: served.library((tree,), (), fresh=True, wait=False), peer)
        growing = interleaved(ROUNDS, lambda: grow_and_look(served, tree))[0]
    find_first, find_again = statistics.median(theirs), statistics.median(theirs_again)
    what = f"{RUNS:,} runs × {STEPS} checkpoints"
    write(
        "Scan of many runs",
        [
            Figure(f"{what}: names and sizes for the first time ÷ `find`", statistics.median(first) / find_first, 5, "×", spread(theirs)),
            Figure(f"{what}: headers in the background, a file (of {files:,})", headers / files * 1000, 1, "ms"),
            Figure(f"{what}: nothing changed ÷ `find`", statistics.median(again) / find_again, 1, "×", spread(theirs_again)),
            Figure(f"{what}: one run has a new checkpoint ÷ `find`", statistics.median(growing) / find_again, 5, "×"),
        ],
    )
    print(f"first {spread(first)}, headers {headers:.1f} s, nothing changed {spread(again)}, one changed {spread(growing)}, {runs} runs")


def read_all(tree: Path, home: Path) -> tuple[float, Lookout, int]:
    """Seconds from the first look until every header is read, as the page has it."""
    served = Lookout(Store(home))
    began = time.perf_counter()
    library = served.library((tree,), (), fresh=True, wait=False)
    while served.unread and time.perf_counter() - began < LONGEST:
        time.sleep(0.05)
    taken = time.perf_counter() - began
    library = served.library((tree,), (), fresh=True, wait=False)
    unread = [c.id for run in library.runs for c in run.checkpoints if c.holds != "lora" or c.flaw]
    assert len(library.runs) == RUNS and not unread, (len(library.runs), unread[:3])
    while served.busy:
        time.sleep(0.05)
    return taken, served, len(library.runs)


def grow_and_look(served: Lookout, tree: Path) -> None:
    run = tree / "run_0000"
    made = len(list(run.iterdir()))
    lora_folder(run / f"checkpoint-{made * 100}", header_of_diffusers())
    served.library((tree,), (), fresh=True, wait=False)


def make_tree(tree: Path) -> int:
    """Every second run as diffusers' scripts leave it, the others as kohya's, of ranks 1 to 128; bodies are holes. The number of files."""
    for number in range(RUNS):
        run, rank = tree / f"run_{number:04}", 1 + number // 2 % 128
        table = kohya_tensors(rank) if number % 2 else header_of_diffusers(rank)
        for step in range(1, STEPS + 1):
            if number % 2:
                metadata = {"ss_output_name": run.name, "ss_network_module": "networks.lora", "ss_steps": str(step), "ss_network_dim": "4"}
                write_file(run / f"{run.name}-{step:06}.safetensors", {"__metadata__": metadata | {"ss_run": run.name}, **table})
            else:
                lora_folder(run / f"checkpoint-{step * 100}", table)
        if number % 10 == 0:
            (run / "logs").mkdir()
            (run / "logs" / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"")
    return RUNS * STEPS


def lora_folder(folder: Path, table: dict[str, object]) -> None:
    write_file(folder / "pytorch_lora_weights.safetensors", table)
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        (folder / name).write_bytes(b"-" * 100)


def write_file(path: Path, table: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = json.dumps(table, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    size = max(entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__")  # type: ignore[index]
    with open(path, "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + size)


def attentions() -> list[tuple[str, int]]:
    """The attention blocks of a Stable Diffusion UNet and their widths."""
    down = [(f"down_blocks.{b}.attentions.{a}", w) for b, w in enumerate((320, 640, 1280)) for a in range(2)]
    up = [(f"up_blocks.{b}.attentions.{a}", w) for b, w in ((1, 1280), (2, 640), (3, 320)) for a in range(3)]
    return [*down, ("mid_block.attentions.0", 1280), *up]


def modules() -> list[tuple[str, int, int]]:
    """Module, inputs and outputs of the layers that LoRAs adapt."""
    layers = []
    for block, width in attentions():
        for kind, inner in (("attn1", width), ("attn2", 768)):
            for name, wide in (("to_q", width), ("to_k", inner), ("to_v", inner), ("to_out.0", width)):
                layers.append((f"{block}.transformer_blocks.0.{kind}.{name}", wide, width))
    return layers


def header_of_diffusers(rank: int = 4) -> dict[str, object]:
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for module, wide, out in modules():
        shapes += [(f"unet.{module}.lora.down.weight", (rank, wide)), (f"unet.{module}.lora.up.weight", (out, rank))]
    return placed(shapes)


def kohya_tensors(rank: int = 4) -> dict[str, object]:
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for module, wide, out in modules():
        name = "lora_unet_" + module.replace(".", "_")
        shapes += [(f"{name}.alpha", ()), (f"{name}.lora_down.weight", (rank, wide)), (f"{name}.lora_up.weight", (out, rank))]
    for layer in range(12):
        for inner in ("mlp_fc1", "mlp_fc2", "self_attn_k_proj", "self_attn_out_proj", "self_attn_q_proj", "self_attn_v_proj"):
            name = f"lora_te_text_model_encoder_layers_{layer}_{inner}"
            wide, out = {"mlp_fc1": (768, 3072), "mlp_fc2": (3072, 768)}.get(inner, (768, 768))
            shapes += [(f"{name}.alpha", ()), (f"{name}.lora_down.weight", (rank, wide)), (f"{name}.lora_up.weight", (out, rank))]
    return placed(shapes)


def placed(shapes: list[tuple[str, tuple[int, ...]]]) -> dict[str, object]:
    table: dict[str, object] = {}
    at = 0
    for name, shape in shapes:
        size = 2 * math.prod(shape)
        table[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return table


if __name__ == "__main__":
    main()
