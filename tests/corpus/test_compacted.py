"""What trainers really wrote is compacted, read as it was, and restored to the last byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cmp.core.progress import Progress
from cmp.core.storage import Item, Rules
from cmp.disk.compact_planning import compact_files, dumps_of
from cmp.disk.ready import ready_checkpoint
from cmp.errors import CmpError
from cmp.settings import Settings
from cmp.workbench import Workbench
from cmp.workbench.storing import Asked, NotDone, Restored
from tests.storing import contents, grow_old

from .cases import CASES

# the cases with a dump; False where nothing is saved: all of it was trained, or names take more
# room than its numbers, as only in models so tiny
SAVED = {
    "acc_adapter": True, "acc_peft_bf16": False, "acc_peft_bias_all": True, "acc_peft_dora": True, "acc_peft_loha": True,
    "acc_peft_r8_a16": True, "acc_peft_rslora": True, "acc_peft_two_models": True, "acc_full_unet": False,
}  # fmt: skip
DECLINED = {"acc_peft_bin": "torch's own format", "acc_peft_sharded": "several files"}


def told_of(bench: Workbench) -> dict[str, object]:
    """What a checkpoint is to whoever lists it, draws with it or converts it."""
    told: dict[str, object] = {}
    for run in bench.library().runs:
        for c in run.checkpoints:
            told[c.id] = (c.layout, c.holds, c.step, c.flaw, c.aliases, round(c.written_at))
            try:
                ready = ready_checkpoint(run, c, bench.bases, bench.store, need_base=True)
            except CmpError as fault:
                told[f"{c.id} ready"] = fault.exit_code
                continue
            proof = ready.base.proof if ready.base else None
            told[f"{c.id} ready"] = (ready.digest(bench.store), ready.scale and ready.scale.value, proof, ready.replaced)
    return told


@pytest.fixture
def bench_for(corpus: Path, tmp_path: Path):
    def make(name: str) -> Workbench:
        if not (corpus / name).is_dir():
            pytest.skip(f"the corpus has no {name}")
        shutil.copytree(corpus / name / "outputs", tmp_path / "outputs", symlinks=True)
        grow_old(tmp_path / "outputs")
        return Workbench(Settings(tmp_path / "home", (tmp_path / "outputs",), (corpus / "bases",)))

    return make


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_it_is_compacted_read_as_it_was_and_restored_to_the_last_byte(bench_for, tmp_path: Path, name: str) -> None:
    bench = bench_for(name)
    before, told = contents(tmp_path / "outputs"), told_of(bench)
    runs = bench.library().runs
    dumps = [raw for run in runs for c in run.checkpoints for raw in dumps_of(c)]
    plan = bench.plan_cleanup(runs, Rules(), Asked(compact=True))
    if words := DECLINED.get(name):
        assert any(words in item.why for item in plan.items) and not plan.changes, plan.items
        return
    assert bool(dumps) == (name in SAVED), f"{name}: {dumps}"
    done = [step for step in bench.clean_up(plan) if not isinstance(step, Progress)]
    compacted = [file for run in bench.library().runs for c in run.checkpoints for file in compact_files(c)]
    if not SAVED.get(name):
        assert not compacted and contents(tmp_path / "outputs") == before
        assert not dumps or "nothing" in str([getattr(each, "error", each) for each in (*done, *plan.items)])
        return
    told_not = [str(each.error) for each in done if isinstance(each, NotDone)]
    assert compacted and len(compacted) + len(told_not) == len(dumps) and all("nothing is saved" in why for why in told_not), done
    assert all(item.bytes > 0 for item in done if isinstance(item, Item))
    assert told_of(bench) == told
    for run in bench.library().runs:
        if any(compact_files(c) for c in run.checkpoints):
            assert [step for step in bench.restore(run.id) if isinstance(step, Restored)]
    assert contents(tmp_path / "outputs") == before and told_of(bench) == told
