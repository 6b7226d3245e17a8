"""Sizes of updates of real checkpoints of every kind, held against the merged weights minus the base's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cmp.core.conversion import Writing
from cmp.core.progress import run_through
from cmp.core.runs import Checkpoint, Run
from cmp.core.update_size import WHOLE
from cmp.disk.bases import CONTROL, read_component
from cmp.disk.merging import merge
from cmp.disk.ready import Answers, Ready
from cmp.disk.store import Store
from cmp.disk.tensors import read_float32
from cmp.disk.update_sizes import measuring_update, quick_update_size
from cmp.errors import CmpError
from cmp.settings import Settings
from cmp.workbench import Workbench

from .cases import CASES, read_items

NO_CHANGE = {"textual_inversion"}  # learned words change nothing of the base
NOT_AT_ONCE = NO_CHANGE | {"acc_full_unet", "t2i_full_ema", "acc_peft_bias_all", "acc_peft_dora", "lycoris_dora"}  # without the base


def multiplied_out(ready: Ready) -> float:
    """The norm of the merged weights minus the base's, tensor by tensor."""
    assert ready.base is not None
    total = 0.0
    for name in ready.opened.weights.components:
        there = read_component(ready.base.path, name)
        merged = merge(ready.opened, name, there, ready.scale, Writing("F32"))
        for tensor in {**merged.adapted, **(merged.own if name not in ready.opened.weights.dumped or name in ready.replaced else {})}:
            total += float(np.square(merged.read(tensor).astype(np.float64) - read_float32(there.header, tensor)).sum())
    return math.sqrt(total)


def checkpoints(bench: Workbench) -> list[tuple[Run, Checkpoint]]:
    return [(run, c) for run in bench.library().runs for c in run.checkpoints if c.flaw is None and CONTROL not in c.holds]


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_the_size_is_that_of_the_merged_weights_minus_the_bases(name: str, corpus: Path, tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "home", (corpus / name / "outputs",), (corpus / "bases",)))
    base, _ = read_items(corpus / name)
    measured = at_once = 0
    for run, checkpoint in checkpoints(bench):
        try:
            ready = bench.ready(run, checkpoint, Answers(base=str(corpus / "bases" / base)))
        except CmpError:
            continue  # it can be used for nothing else either
        size = run_through(measuring_update(ready, Store(tmp_path / "home")))
        if name in NO_CHANGE:
            assert size.told
            continue
        assert size.told == (), "every tensor is counted"
        whole = size.blocks[0]
        assert whole.block == WHOLE and whole.size == pytest.approx(multiplied_out(ready), rel=2e-3), checkpoint.id
        assert whole.size == pytest.approx(math.sqrt(sum(block.size**2 for block in size.blocks[1:])))
        assert whole.relative is not None and whole.size > 0
        quick = quick_update_size(ready, Store(tmp_path / "home"))
        assert quick is None or quick.blocks[0].size == pytest.approx(whole.size), "what is shown at once is the whole too"
        at_once += quick is not None
        measured += 1
    assert measured or name in NO_CHANGE, "nothing could be measured"
    assert bool(at_once) == (name not in NOT_AT_ONCE)
