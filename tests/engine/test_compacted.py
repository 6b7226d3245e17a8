"""A compacted checkpoint draws, converts, is measured and is found again in the store as the dump that it was."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmp.core.grids import GridSpec, Prompt, Sampling, Tile
from cmp.core.measured import Measured, MeasureSpec, NotMeasured
from cmp.core.progress import Progress, run_through
from cmp.core.storage import Rules
from cmp.disk.ready import Answers
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.storing import Asked
from tests.storing import contents, grow_old
from tests.support import DEVICE, tiles_of

from .conftest import FULL, SEED, pixels

pytestmark = pytest.mark.model


def drawn(bench: Workbench) -> list[Tile]:
    run, _ = bench.find(FULL)
    chosen = tuple(run.checkpoint(key) for key in ("500", "1500"))
    return tiles_of(bench.draw_grid(GridSpec(chosen, (Prompt("a red casual shoe"),), (SEED,), samplings=(Sampling(2, 3.0),)), [run]))


def converted(bench: Workbench, folder: Path) -> list[str]:
    """Digests of the tensors in two forms of a checkpoint; the headers tell the time of making."""
    lora, pipeline = folder / "lora.safetensors", folder / "pipeline"
    run_through(bench.convert(bench.plan_conversion(f"{FULL}@1000", "lora", output=lora)))
    run_through(bench.convert(bench.plan_conversion(f"{FULL}@1000", "pipeline", output=pipeline)))
    whole = [file.read_bytes() for file in (lora, pipeline / "unet" / "diffusion_pytorch_model.safetensors")]
    return [hashlib.sha256(raw[8 + int.from_bytes(raw[:8], "little") :]).hexdigest() for raw in whole]


def test_a_compacted_checkpoint_draws_the_same_bits_under_the_same_keys(tmp_path: Path) -> None:
    bench = Workbench(Settings(home=tmp_path / "home", device=DEVICE))
    (run,) = (run for run in bench.library().runs if run.id == FULL)
    grow_old(run.folder)
    before, tiles, forms = contents(run.folder), drawn(bench), converted(bench, tmp_path / "raw")
    pictures = [pixels(tile.path) for tile in tiles]

    run = bench.library().run(FULL)
    done = [each for each in bench.clean_up(bench.plan_cleanup([run], Rules(), Asked(compact=True))) if not isinstance(each, Progress)]
    dumps = [name for name in before if name.startswith("checkpoints/") and name.endswith("/model.safetensors")]
    assert len(done) == len(dumps) == 6 and not any((run.folder / name).exists() for name in dumps), done
    frozen = sum(item.bytes for item in done)
    assert frozen > 0.8 * sum(c.bytes for c in run.checkpoints if c.key != "final")

    again = drawn(bench)
    assert [(tile.key, tile.reused) for tile in again] == [(tile.key, True) for tile in tiles]
    for tile in tiles:
        assert tile.path is not None
        tile.path.unlink()
    fresh = drawn(Workbench(Settings(home=tmp_path / "home", device=DEVICE)))
    assert not any(tile.reused or tile.fault for tile in fresh) and [tile.key for tile in fresh] == [tile.key for tile in tiles]
    assert all(np.array_equal(pixels(tile.path), picture) for tile, picture in zip(fresh, pictures, strict=True))
    assert converted(bench, tmp_path / "compacted") == forms

    list(bench.restore(FULL))
    assert contents(run.folder) == before


def losses(home: Path, runs: Path, bases: Path, held_out: Path) -> dict[str, bytes]:
    """The held-out loss of two checkpoints, computed: nothing is remembered in this home."""
    bench = Workbench(Settings(home, (runs,), (bases,), device="cpu"))
    run, _ = bench.find(FULL)
    run = replace(run, checkpoints=tuple(run.checkpoint(key) for key in ("500", "1500")))
    found = [one for one in bench.measure(run, MeasureSpec(held_out=held_out, draws=4), Answers()) if not isinstance(one, Progress)]
    assert not [one for one in found if isinstance(one, NotMeasured)], found
    return {f"{one.metric} {one.checkpoint_id}": one.values.tobytes() for one in found if isinstance(one, Measured) and not one.reused}


def test_a_compacted_checkpoint_is_measured_to_the_same_loss(tmp_path: Path) -> None:
    bench = Workbench(Settings(home=tmp_path / "home", device="cpu"))
    (run,) = (run for run in bench.library().runs if run.id == FULL)
    grow_old(run.folder)
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    for seed in range(2):
        pixels_of = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels_of).resize((64, 64)).save(held_out / f"{seed}.png")
    places = run.folder.parent, tmp_path / "home" / "demo" / "bases"
    raw = losses(tmp_path / "first", *places, held_out)
    run = bench.library().run(FULL)
    list(bench.clean_up(bench.plan_cleanup([run], Rules(), Asked(compact=True))))
    assert not list(run.folder.rglob("checkpoint-*/model.safetensors"))
    assert len(raw) > 2 and losses(tmp_path / "second", *places, held_out) == raw
