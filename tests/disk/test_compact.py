"""A compacted dump is read as the dump that it was; what cannot be proven to be that is refused, by name."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cmp.core.present import COMPACTED
from cmp.core.progress import Progress, run_through
from cmp.core.storage import CleanupPlan, Item, Rules
from cmp.disk.checkpoint import open_weights
from cmp.disk.numbers import cast_bits
from cmp.disk.raw import RawReader
from cmp.disk.tensors import read_tensor, read_tensors
from cmp.disk.usage import mark
from cmp.disk.writing import write_tensors
from cmp.errors import CmpError, NoSpace, Refused, Unreadable
from cmp.ui.values import checkpoints_table
from cmp.workbench.storing import Asked, NotDone, Restored
from tests.in_process import command
from tests.storing import BIG, RUN, big_base, cmp, contents, dumped, frozen_run, grow_old
from tests.support import MODULES, Training, at_most, base_pipeline, bench_of, save

NAME = f"base_model.model.{BIG}"
ADAPTER = f"base_model.model.{MODULES[0]}.lora_A.default.weight"


@pytest.fixture
def made(tmp_path: Path) -> Training:
    return frozen_run(tmp_path)


def compact(made: Training, rules: Rules = Rules()) -> list[Item | NotDone]:
    bench = bench_of(made)
    plan = bench.plan_cleanup(bench.library().runs, rules, Asked(compact=True))
    return [step for step in bench.clean_up(plan) if not isinstance(step, Progress)]


def restore(made: Training, target: str = RUN) -> list[Path]:
    return [step.path for step in bench_of(made).restore(target) if isinstance(step, Restored)]


def dump(made: Training, step: int = 500) -> Path:
    return made.checkpoint(step) / "model.safetensors"


def left_of(made: Training, step: int = 500) -> Path:
    return made.checkpoint(step) / "model.compact.safetensors"


def why(made: Training, step: int = 500) -> str:
    """Why nothing came of compacting a step."""
    bench = bench_of(made)
    plan = bench.plan_cleanup(bench.library().runs, Rules(), Asked(compact=True))
    return next(item.why for item in plan.items if item.checkpoint == f"{RUN}@{step}" and item.action == "keep")


def test_every_tensor_of_a_compacted_dump_is_read_as_it_was_to_the_bit(made: Training) -> None:
    before = load_file(dump(made))
    compact(made)
    header = open_weights(left_of(made)).header
    assert list(header.tensors) and {name: values.tobytes() for name, values in read_tensors(header, header.tensors)} == {
        name: values.tobytes() for name, values in before.items()
    }
    with RawReader(header) as reader:
        assert all(b"".join(map(bytes, reader.blocks(name))) == before[name].tobytes() for name in before)


def test_a_compacted_checkpoint_is_told_to_be_one_wherever_it_is_shown(made: Training, tmp_path: Path) -> None:
    said = cmp(made, "storage", "--keep", "last", "--compact", "--yes")
    assert "compacted: " in said.err and "waiting for the disk" not in said.err
    assert made.checkpoint(1000).exists() and left_of(made, 1000).exists()
    verbs = (["list"], ["show", RUN], ["show", f"{RUN}@1000"])
    told = [command(tmp_path / "home", "--runs", str(made.outputs), "--bases", str(made.bases), *verb).out for verb in verbs]
    bench = bench_of(made)
    (run,) = bench.library().runs
    (row,) = checkpoints_table(run, bench.name_of, (), lambda sample: None)["rows"]
    assert [COMPACTED in one for one in (*told, row["cells"][1]["sub"])] == [True] * 4
    assert cmp(made, "list").json["runs"][0]["checkpoints"][0]["compacted"] is True
    restore(made)
    assert cmp(made, "list").json["runs"][0]["checkpoints"][0]["compacted"] is False


def test_what_is_left_holds_what_was_trained_and_nothing_of_the_base(made: Training) -> None:
    compact(made)
    assert {name for name in load_file(left_of(made)) if "lora_" not in name} == set()
    assert sorted(path.name for path in made.checkpoint(500).iterdir()) == [
        "model.compact.json", "model.compact.safetensors", "optimizer.bin", "random_states_0.pkl", "scheduler.bin",
    ]  # fmt: skip


def test_a_restored_dump_has_its_bytes_its_times_and_its_permissions(made: Training) -> None:
    dump(made).chmod(0o640)
    before, found = contents(made.run), dump(made).stat()
    compact(made)
    assert restore(made) == [dump(made), dump(made, 1000)]
    now = dump(made).stat()
    assert contents(made.run) == before and (now.st_mtime_ns, now.st_mode) == (found.st_mtime_ns, found.st_mode)


@pytest.mark.parametrize("kind", ["BF16", "F16"])
def test_a_dump_of_the_base_in_another_type_is_compacted_against_it(made: Training, kind: str) -> None:
    values = {name: (cast_bits(v, "F32", kind), kind) if "lora_" not in name else (v, "F32") for name, v in dumped(500).items()}
    described = {name: (k, v.shape) for name, (v, k) in values.items()}
    write_tensors(dump(made), described, lambda name: values[name][0], {"format": "pt"})
    grow_old(made.run)
    before = contents(made.run)
    assert all(isinstance(each, Item) for each in compact(made))
    header = open_weights(left_of(made)).header
    assert header.tensors[NAME].dtype == kind and np.array_equal(read_tensor(header, NAME), values[NAME][0])
    restore(made)
    assert contents(made.run) == before


@pytest.mark.parametrize("kind", ["BF16", "F16"])
def test_a_dump_of_an_exact_cast_of_the_base_is_compacted_against_it(made: Training, kind: str) -> None:
    """The base lies on the disk in half precision and was trained in full, as from a variant fp16."""
    base = {name: cast_bits(v, "F32", kind) for name, v in big_base().items()}
    file = next((made.base / "unet").glob("*.safetensors"))
    write_tensors(file, {name: (kind, v.shape) for name, v in base.items()}, base.__getitem__, {"format": "pt"})
    trained = dumped(500) | {f"base_model.model.{name}": cast_bits(v, kind, "F32") for name, v in base.items()}
    trained = {name: trained[name] for name in dumped(500)}
    save(dump(made), trained, {"format": "pt"})
    grow_old(made.run)
    before = contents(made.run)
    assert isinstance(compact(made)[0], Item | NotDone) and left_of(made).exists() and NAME not in load_file(left_of(made))
    restore(made, f"{RUN}@500")
    assert contents(made.run) == before


def test_what_differs_from_the_base_is_kept(made: Training) -> None:
    bias = "base_model.model.conv_out.bias"
    save(dump(made), dumped(500) | {bias: np.full(4, 3, "f4")}, {"format": "pt"})
    grow_old(made.run)
    before = contents(made.run)
    compact(made)
    assert bias in load_file(left_of(made)) and np.array_equal(read_tensor(open_weights(left_of(made)).header, bias), np.full(4, 3, "f4"))
    restore(made)
    assert contents(made.run) == before


def test_where_all_was_trained_it_is_said_that_nothing_is_saved(made: Training) -> None:
    save(dump(made), {name: values + np.float32(1) for name, values in dumped(500).items()})
    grow_old(made.run)
    before = dump(made).read_bytes()
    (fault,) = (each.error for each in compact(made) if isinstance(each, NotDone))
    assert "nothing is saved" in fault.message and dump(made).read_bytes() == before and not left_of(made).exists()
    (run,) = cmp(made, "storage").json["runs"]
    assert "nothing would be saved" in why(made) and run["could_be_freed"]["compact"] == 0, "it is known by now"


def test_without_a_base_the_newest_dump_is_kept_and_the_others_refer_to_it(tmp_path: Path) -> None:
    made = frozen_run(tmp_path, (500, 1000, 1500), base=False)
    before = contents(made.run)
    assert "the other dumps are compacted against it" in why(made, 1500)
    assert all(isinstance(each, Item) for each in compact(made))
    assert dump(made, 1500).exists() and not dump(made, 500).exists() and not dump(made, 1000).exists()
    restore(made)
    assert contents(made.run) == before


def test_a_base_that_only_looks_right_gives_way_to_another_dump(made: Training) -> None:
    base_pipeline(made.bases, {name: values + np.float32(1) for name, values in big_base().items()})
    newest, other = sorted(compact(made), key=lambda each: isinstance(each, Item))
    assert isinstance(newest, NotDone) and "nothing is saved" in newest.error.message and dump(made, 1000).exists()
    assert isinstance(other, Item) and not dump(made, 500).exists()


@pytest.mark.parametrize("gone", [False, True], ids=["in the run", "in the trash"])
def test_a_dump_that_others_refer_to_is_neither_removed_nor_compacted(tmp_path: Path, gone: bool) -> None:
    made = frozen_run(tmp_path, (500, 1000, 1500), base=False)
    compact(made)
    bench = bench_of(made)
    (run,) = bench.library().runs
    if gone:  # what depends on it may be brought back
        assert cmp(made, "storage", "--keep", "every:1500", "--yes").code == 0
        assert sorted(path.name for path in made.checkpoint(500).parent.iterdir()) == ["checkpoint-1500"]
    base_pipeline(made.bases, big_base())  # with which it could be compacted itself
    bench = bench_of(made)
    (run,) = bench.library().runs
    for asked, rules in ((Asked(compact=True), Rules()), (Asked(), Rules(named=True, every=500000))):
        items = [item for item in bench.plan_cleanup([run], rules, asked).items if item.checkpoint == f"{RUN}@1500"]
        assert [item.action for item in items] == ["keep"] and "was compacted against it" in items[0].why, items


def test_what_holds_the_frozen_tensors_of_another_run_stays(tmp_path: Path) -> None:
    """A pipeline in one run's checkpoint is the base model of another run."""
    made = frozen_run(tmp_path, (500, 1000))
    second = frozen_run(tmp_path / "later", (500,), base=False)
    shutil.move(second.run, made.outputs / "second")
    shutil.move(made.base, made.checkpoint(500) / "pipeline")
    grow_old(tmp_path)
    bench = bench_of(replace(made, bases=made.checkpoint(500)))
    (run,) = (run for run in bench.library().runs if run.id == "second")
    plan = bench.plan_cleanup([run], Rules(), Asked(compact=True))
    assert [step for step in bench.clean_up(plan) if isinstance(step, Item)], plan.items
    grow_old(tmp_path)
    bench = bench_of(made)
    before = contents(made.outputs)
    plan = bench.plan_cleanup(bench.library().runs, Rules(named=True, last=1))
    (item,) = (item for item in plan.items if item.checkpoint == f"{RUN}@500")
    assert item.action == "keep" and "was compacted against it" in item.why
    first = bench.library().run(RUN)
    gone = replace(item, action="trash", home=first.folder, mark=mark(item.path))
    (step,) = (step for step in bench.clean_up(CleanupPlan((gone,), 0, 0, (first.folder,))) if not isinstance(step, Progress))
    assert isinstance(step, NotDone) and "was compacted against it" in step.error.message and contents(made.outputs) == before


def test_what_others_were_compacted_against_since_the_plan_stays(tmp_path: Path) -> None:
    made = frozen_run(tmp_path, (500, 1000), base=False)
    bench = bench_of(made)
    plan = bench.plan_cleanup(bench.library().runs, Rules(named=True, every=10**6))
    assert len(plan.changes) == 2
    compact(made)
    done = [step for step in bench.clean_up(plan) if not isinstance(step, Progress)]
    told = [each.error.message for each in done if isinstance(each, NotDone)]
    assert len(told) == 2 and "has changed" in told[0] and "was compacted against it" in told[1], done
    assert dump(made, 1000).exists() and left_of(made).exists()


def test_a_reference_that_the_user_moved_back_makes_it_whole_again(tmp_path: Path) -> None:
    made = frozen_run(tmp_path, base=False)
    before = contents(made.run)
    compact(made)
    dump(made, 1000).rename(tmp_path / "aside")
    with pytest.raises(Unreadable, match="1000"):
        restore(made, f"{RUN}@500")
    (tmp_path / "aside").rename(dump(made, 1000))
    restore(made, f"{RUN}@500")
    assert contents(made.run) == before


def test_a_run_that_was_moved_is_restored(tmp_path: Path) -> None:
    made = frozen_run(tmp_path / "one", base=False)
    before = contents(made.run)
    compact(made)
    (tmp_path / "one").rename(tmp_path / "two")
    moved = Training(tmp_path / "two" / "outputs" / RUN, tmp_path / "two" / "outputs", tmp_path / "two" / "bases")
    restore(moved)
    assert contents(moved.run) == before


def test_a_base_that_was_moved_is_found_among_the_bases(made: Training, tmp_path: Path) -> None:
    before = contents(made.run)
    compact(made)
    made.bases.rename(tmp_path / "elsewhere")
    elsewhere = Training(made.run, made.outputs, tmp_path / "elsewhere")
    assert bench_of(elsewhere).ready(*bench_of(elsewhere).find(f"{RUN}@500")).base.proof == "tensors"  # type: ignore[union-attr,arg-type]
    restore(elsewhere)
    assert contents(made.run) == before


# -- what is refused -------------------------------------------------------------------------------------------------------


def test_a_base_that_changed_is_refused_by_name_and_nothing_is_restored(made: Training) -> None:
    compact(made)
    changed = big_base()
    changed[BIG][3, 3, 1, 1] += 1
    base_pipeline(made.bases, changed)
    with pytest.raises(Refused, match=rf"has changed since .* {NAME}"):
        restore(made)
    assert not dump(made).exists() and left_of(made).exists()
    bench = bench_of(made)
    run, checkpoint = bench.find(f"{RUN}@500")
    assert checkpoint is not None
    assert checkpoint.flaw is None, "what was trained is there"
    with pytest.raises(Refused, match="has changed since"):  # one tensor is another, as if it had been trained: then it is read
        run_through(bench.convert(bench.plan_conversion(f"{RUN}@500", "pipeline")))
    with pytest.raises(Refused, match="has changed since"):
        bench.ready(run, checkpoint).digest(bench.store)


def test_a_base_whose_header_alone_changed_is_read_where_its_tensors_are_now(made: Training) -> None:
    before = contents(made.run)
    compact(made)
    save(made.base / "unet" / "diffusion_pytorch_model.safetensors", big_base(), {"format": "pt", "and": "much more than before" * 9})
    restore(made)
    assert contents(made.run) == before


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_flipped_bit_in_what_was_trained_is_found(made: Training, where: str) -> None:
    compact(made)
    raw = bytearray(left_of(made).read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    raw[{"first": start, "middle": (start + len(raw)) // 2, "last": len(raw) - 1}[where]] ^= 4
    left_of(made).write_bytes(raw)
    header = open_weights(left_of(made)).header
    with pytest.raises(Unreadable, match="is damaged"):
        list(read_tensors(header, header.tensors))
    with pytest.raises(Unreadable, match="is damaged"):
        restore(made, f"{RUN}@500")
    assert not dump(made).exists() and sorted(p.name for p in made.checkpoint(500).iterdir() if p.name.startswith(".")) == []


def change(manifest: Path, **more: object) -> None:
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | more))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.write_bytes(b"{"), lambda m: change(m, format=2), lambda m: change(m, sha256="0" * 64), lambda m: change(m, frozen={}),
        lambda m: change(m, header="AAAA"), lambda m: change(m, references=[]), lambda m: change(m, bytes=7), lambda m: m.unlink(),
        lambda m: change(m, original="../../model.safetensors"), lambda m: change(m, references=[{"kind": "base", "id": "x"}]),
        lambda m: change(m, mtime_ns=1 << 80), lambda m: change(m, mode=-1),
        lambda m: change(m, trained=[]), lambda m: change(m, bytes="many"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_damaged_or_anothers_is_a_flaw_and_no_crash(made: Training, spoil) -> None:
    compact(made)
    spoil(made.checkpoint(500) / "model.compact.json")
    bench = bench_of(made)
    assert bench.library().run(RUN).checkpoint("500").flaw and bench.library().run(RUN).checkpoint("1000").flaw is None
    with pytest.raises(CmpError):
        restore(made, f"{RUN}@500")
    assert cmp(made, "storage", "--compact").code == 0


def test_two_compact_forms_that_were_swapped_are_a_flaw(made: Training) -> None:
    compact(made)
    left_of(made).rename(made.run / "aside")
    left_of(made, 1000).rename(left_of(made))
    (made.run / "aside").rename(left_of(made, 1000))
    assert all("do not belong together" in str(c.flaw) for c in bench_of(made).library().run(RUN).checkpoints)


def test_a_dump_with_a_second_name_is_left_alone(made: Training, tmp_path: Path) -> None:
    os.link(dump(made), tmp_path / "second")
    assert "2 names" in why(made)
    compact(made)
    assert dump(made).exists()


def test_a_checkpoint_behind_a_link_is_left_alone(made: Training, tmp_path: Path) -> None:
    made.checkpoint(500).rename(tmp_path / "elsewhere")
    made.checkpoint(500).symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    compact(made)
    assert cmp(made, "storage", "--keep", "last", "--yes").code == 0
    assert made.checkpoint(500).is_symlink() and contents(tmp_path / "elsewhere") == before
    bench = bench_of(made)
    run, _ = bench.find(str(made.checkpoint(500)))
    assert not [item for item in bench.plan_cleanup([run], Rules(named=True), Asked(compact=True)).changes if "500" in str(item.path)]


def test_where_all_is_too_young_to_be_compacted_it_is_said_from_when(made: Training, tmp_path: Path) -> None:
    assert cmp(made, "storage").json["runs"][0]["compact_from"] is None
    grow_old(made.outputs, 60)
    (run,) = cmp(made, "storage").json["runs"]
    told = command(tmp_path / "home", "--runs", str(made.outputs), "--bases", str(made.bases), "storage").out
    assert run["could_be_freed"]["compact"] > 0 and f"from {run['compact_from']} on" in told


def test_a_young_checkpoint_and_one_of_a_run_in_training_are_left_alone(made: Training) -> None:
    grow_old(made.checkpoint(500), 600)
    assert "written less than 60 min ago" in why(made) and len(compact(made)) == 1
    assert len(compact(made, Rules(min_age=60))) == 1 and not dump(made).exists()


def test_a_dump_that_is_restored_where_another_was_written_is_refused(made: Training) -> None:
    compact(made)
    dump(made).write_bytes(b"another")
    with pytest.raises(Refused, match="exists"):
        restore(made, f"{RUN}@500")
    assert dump(made).read_bytes() == b"another" and left_of(made).exists()


def test_a_new_dump_beside_a_compact_form_is_the_checkpoint_and_the_form_is_kept_in_the_trash(made: Training) -> None:
    compact(made)
    save(dump(made), dumped(700), {"format": "pt"})
    grow_old(made.run)
    assert bench_of(made).library().run(RUN).checkpoint("500").file == dump(made)
    compact(made)
    assert np.array_equal(load_file(left_of(made))[ADAPTER], dumped(700)[ADAPTER])
    assert len([path for path in (made.run / ".cmp-trash").iterdir() if "compact" in path.name and not path.name.startswith(".")]) == 2


def test_a_disk_without_room_is_told_before_the_first_byte(made: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(made)
    import shutil

    usage = shutil.disk_usage(made.run)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    before = contents(made.run)
    with pytest.raises(NoSpace, match="1,000 free"):
        restore(made)
    assert contents(made.run) == before


def test_a_dump_that_is_not_made_again_to_the_bit_stays(made: Training) -> None:
    """Two frozen tensors of one shape are said to be held where the other one is."""
    from cmp.disk.compact import Reference
    from cmp.disk.compact_making import compacting
    from cmp.disk.trash import reclaiming

    opened, values = open_weights(dump(made)), big_base()
    frozen = {stored: (0, name.partition(".")[2]) for stored, name in opened.weights.plain.items()}
    one, other = next(
        pair for pair in combinations(frozen, 2) if len({values[frozen[name][1]].shape for name in pair}) == 1
        and not np.array_equal(*(values[frozen[name][1]] for name in pair))
    )  # fmt: skip
    frozen[one], frozen[other] = frozen[other], frozen[one]
    reference = Reference("base", "tiny-sd", made.base / "unet" / "diffusion_pytorch_model.safetensors")
    before = contents(made.run)
    with reclaiming(made.run), pytest.raises(Refused, match="was not made again"):
        run_through(compacting(made.run, dump(made), frozen, (reference,)))
    assert contents(made.run) == before


def test_what_changes_while_it_is_compacted_stays_as_it_is(made: Training) -> None:
    from cmp.disk.compact import Reference
    from cmp.disk.compact_making import compacting
    from cmp.disk.trash import reclaiming

    opened = open_weights(dump(made))
    frozen = {stored: (0, name.partition(".")[2]) for stored, name in opened.weights.plain.items()}
    reference = Reference("base", "tiny-sd", made.base / "unet" / "diffusion_pytorch_model.safetensors")
    with reclaiming(made.run):
        for after in range(1, 100):
            save(dump(made), dumped(500), {"format": "pt"})
            work = compacting(made.run, dump(made), frozen, (reference,))
            try:
                for _ in range(after):
                    next(work)
            except StopIteration:
                assert after > 5
                return
            save(made.run / "other", dumped(700), {"format": "pt"})
            (made.run / "other").rename(dump(made))
            with pytest.raises(CmpError, match="changed"):
                run_through(work)
            assert np.array_equal(load_file(dump(made))[ADAPTER], dumped(700)[ADAPTER]) and not left_of(made).exists()
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("path", ["model.compact.safetensors", "../checkpoint-1000/model.compact.safetensors", "/dev/zero", ".", "pipe"])
def test_a_manifest_that_refers_to_what_is_no_weights_file_leads_nowhere(made: Training, path: str) -> None:
    compact(made)
    os.mkfifo(made.checkpoint(500) / "pipe")
    change(made.checkpoint(500) / "model.compact.json", references=[{"kind": "base", "id": "x", "path": path}])
    with at_most(20):
        assert bench_of(made).library().run(RUN).checkpoint("500").flaw is None, "what was trained is there"
        with pytest.raises(CmpError, match="cannot be read"):
            restore(made, f"{RUN}@500")
    assert not dump(made).exists()
