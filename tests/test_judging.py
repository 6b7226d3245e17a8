"""Verdicts and votes through the workbench: what convert, grid and storage take for the best, and what a voter is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmp.core.grids import Cell, GridSpec, Prompt, Tile
from cmp.core.runs import Run
from cmp.core.storage import parse_rules
from cmp.core.votes import Pair
from cmp.errors import BadInput, NotFound, Refused
from cmp.pictures.files import save_png
from cmp.workbench import Workbench
from tests.support import Training, bench_of, origin_run, write_log

RUN = "lora_casual_shoes"
STEPS = (500, 1000, 1500, 2000)


def log_losses(made: Training, loss: Callable[[int], float], until: int = 2001, tag: str = "val/loss", every: int = 50) -> None:
    rng = np.random.default_rng(0)
    losses = [(step, loss(step) + 0.001 * rng.normal()) for step in range(0, until, every)]
    write_log(made.outputs.parent / "logs" / f"train_{RUN}", losses, tag, output_dir=f"../outputs/{RUN}", lora_rank=8, lora_alpha=16)


@pytest.fixture
def made(tmp_path: Path) -> Training:
    """A run whose held-out loss is lowest at step 1000, and nearly as low at 1500."""
    made = origin_run(tmp_path, STEPS, final=False)
    log_losses(made, lambda step: 0.1 + 0.1 * ((step - 1240) / 1000) ** 2)
    return made


def run_of(bench: Workbench) -> Run:
    return bench.library().run(RUN)


# -- verdicts --------------------------------------------------------------------------------------------------------------


def test_the_window_of_a_real_log_holds_the_lowest_and_its_neighbour(made: Training) -> None:
    bench = bench_of(made)
    verdict = bench.judge(run_of(bench))
    assert verdict.rule == "held-out" and verdict.best is None and set(verdict.window) == {f"{RUN}@1000", f"{RUN}@1500"}
    assert bench.gate(run_of(bench), "1000 vs base").passes is True and bench.gate(run_of(bench), "2000 vs 1000").passes is False


def test_convert_and_grid_take_the_lowest_and_are_told_what_may_be_as_good(made: Training) -> None:
    bench = bench_of(made)
    run = run_of(bench)
    best, told = bench.best_of(run, run.checkpoints, 1)
    assert [c.key for c in best] == [bench.judge(run).window[0].rpartition("@")[2]] and "may be as good" in told
    both, told = bench.best_of(run, run.checkpoints, 2)
    assert [c.key for c in both] == ["1000", "1500"] and "may be as good" not in told
    assert [c.key for c in bench.best_of(run, run.checkpoints[:1], 3)[0]] == ["500"]
    for count in (0, -1):
        with pytest.raises(BadInput, match="asked for"):
            bench.best_of(run, run.checkpoints, count)


def test_storage_keeps_the_whole_window_and_lets_go_what_is_worse(made: Training) -> None:
    bench = bench_of(made)
    assert set(bench.kept_as_best(run_of(bench))) == {f"{RUN}@1000", f"{RUN}@1500"}
    plan = bench.plan_cleanup([run_of(bench)], parse_rules("best", min_age="0"), best=bench.kept_as_best)
    assert {str(item.checkpoint): item.action for item in plan.items if item.checkpoint} == {
        f"{RUN}@500": "trash", f"{RUN}@1000": "keep", f"{RUN}@1500": "keep", f"{RUN}@2000": "trash",
    }  # fmt: skip


def test_the_heads_of_a_grid_mark_the_window_where_the_logs_decide(made: Training, tmp_path: Path) -> None:
    bench = bench_of(made)
    told = bench.heads(c.id for c in run_of(bench).checkpoints)
    assert {name.rpartition("@")[2] for name, mark in told.items() if mark.get("window")} == {"1000", "1500"}
    assert all(str(mark["score"]) for mark in told.values()) and len(told) == 4
    (tmp_path / "other").mkdir()
    undecided = origin_run(tmp_path / "other", STEPS, final=False)
    log_losses(undecided, lambda step: 1 / (step + 1), tag="loss", every=2)
    assert not any("score" in mark or "window" in mark for mark in bench_of(undecided).heads([f"{RUN}@500"]).values())


def test_the_line_beside_pictures_tells_rule_and_reason_and_that_votes_say_another(made: Training, tmp_path: Path) -> None:
    bench = bench_of(made)
    run = run_of(bench)
    line = bench.verdict_line((None, *run.checkpoints))
    assert line == f"Held-out loss: {bench.judge(run).reason}." and bench.verdict_line([None]) == ""
    other = origin_run(tmp_path / "other", STEPS, logs=False, final=False)
    assert bench.verdict_line(bench_of(other).library().runs[0].checkpoints) == "", "the id alone makes it no run of these"
    cells = with_grid(bench, run, seeds=8)
    for _ in range(72):
        pair = bench.next_pair(run, "ann")
        steps = [cells[key].checkpoint.step for key in pair]  # type: ignore[union-attr]
        bench.cast_vote(run, "ann", *pair, "left" if steps[0] < steps[1] else "right")  # type: ignore[operator]
    assert [verdict.rule for verdict in bench.verdicts(run)] == ["held-out", "votes"]
    said = bench.verdict_line(run.checkpoints)
    assert said == f"{line} Held-out loss says steps 1000–1500, votes say step 500: they disagree."


def test_storage_keeps_checkpoints_that_came_after_the_last_held_out_loss(tmp_path: Path) -> None:
    made = origin_run(tmp_path, STEPS, final=False)
    log_losses(made, lambda step: 0.1 + 0.1 * ((step - 1000) / 500) ** 2, until=1501)
    bench = bench_of(made)
    assert set(bench.kept_as_best(run_of(bench))) == {f"{RUN}@1000", f"{RUN}@2000"}


def test_without_a_held_out_loss_nothing_is_taken_for_the_best(tmp_path: Path) -> None:
    made = origin_run(tmp_path, STEPS, final=False)
    log_losses(made, lambda step: 1 / (step + 1), tag="loss", every=2)
    bench = bench_of(made)
    run = run_of(bench)
    assert bench.judge(run).best is None and len(bench.judge(run).window) == 4
    with pytest.raises(BadInput, match="held-out loss"):
        bench.best_of(run, run.checkpoints, 1)
    with pytest.raises(Refused, match="the best"):
        bench.kept_as_best(run)
    with pytest.raises(Refused, match="training loss"):
        bench.gate(run, "500 vs 1000")
    assert bench.gate(run, "500 vs 1000", "training").passes is False


def test_without_logs_it_is_said_that_there_are_none_and_one_checkpoint_needs_none(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path, STEPS, logs=False, final=False))
    with pytest.raises(NotFound, match="no logged values"):
        bench.judge(run_of(bench))
    with pytest.raises(BadInput, match="held-out"):
        bench.best_of(run_of(bench), run_of(bench).checkpoints, 1)
    alone = bench_of(origin_run(tmp_path / "alone", (500,), logs=False, final=False))
    assert alone.judge(run_of(alone)).best == f"{RUN}@500"
    assert [c.key for c in alone.best_of(run_of(alone), run_of(alone).checkpoints, 1)[0]] == ["500"]


# -- votes -----------------------------------------------------------------------------------------------------------------


def with_grid(bench: Workbench, run: Run, seeds: int = 2, steps: int = 3) -> dict[str, Cell]:
    """A grid's job whose pictures are there though nothing has drawn them, by their keys."""
    spec = GridSpec((None, *run.checkpoints[:steps]), (Prompt("a shoe"),), tuple(range(seeds)))
    found = {f"{number:064x}": cell for number, cell in enumerate(spec.cells())}
    tiles = []
    for key, cell in found.items():
        path = bench.store.cell_path(key)
        save_png(Image.new("RGB", (8, 8)), path, "", {"weights": f"w-{cell.checkpoint.key if cell.checkpoint else ''}"})
        tiles.append(Tile(cell, key, path))
    list(bench.jobs.follow("grid", "x", len(tiles), lambda: iter(tiles), spec))
    return found


def test_a_voter_sees_every_pair_of_a_row_once_and_is_told_two_keys_alone(made: Training) -> None:
    bench = bench_of(made)
    run = run_of(bench)
    cells = with_grid(bench, run)
    assert list(Pair._fields) == ["left", "right"]
    seen: Counter[frozenset[str]] = Counter()
    for _ in range(6):  # two rows of three checkpoints
        pair = bench.next_pair(run, "ann")
        one, other = (cells[key] for key in pair)
        assert one.seed == other.seed and one.checkpoint and other.checkpoint and one.checkpoint != other.checkpoint
        bench.cast_vote(run, "ann", *pair, "left")
        seen[frozenset(pair)] += 1
    assert len(seen) == 6
    for _ in range(6):
        bench.cast_vote(run, "ann", *(pair := bench.next_pair(run, "ann")), "tie")
        seen[frozenset(pair)] += 1
    assert set(seen.values()) == {2}
    tally = bench.tally(run)
    assert tally.votes == 12 and tally.ties == 6 and tally.verdict.unknown == (f"{RUN}@2000",)
    assert bench.judge(run, "votes") == tally.verdict


def test_a_vote_keeps_what_was_shown_and_can_be_taken_back(made: Training) -> None:
    bench = bench_of(made)
    run = run_of(bench)
    cells = with_grid(bench, run)
    pair = bench.next_pair(run, "ann")
    bench.cast_vote(run, "ann", *pair, "right")
    (vote,) = bench.votes(run)
    left = cells[pair.left]
    assert left.checkpoint and (vote.left, vote.left_weights) == (left.checkpoint.key, f"w-{left.checkpoint.key}")
    assert (vote.prompt, vote.seed, vote.left_cell, vote.outcome) == ("a shoe", left.seed, pair.left, "right")
    assert bench.take_back_vote(run, "ann") and not bench.votes(run)
    assert {field.name for field in fields(vote)} >= {"voter", "at"}


def test_keys_that_are_no_pair_of_this_run_are_refused(made: Training) -> None:
    bench = bench_of(made)
    run = run_of(bench)
    cells = with_grid(bench, run)
    of_seed = [[key for key, cell in cells.items() if cell.seed == seed and cell.checkpoint] for seed in (0, 1)]
    base = next(key for key, cell in cells.items() if cell.checkpoint is None)
    wrong = [(of_seed[0][0], of_seed[1][1]), (of_seed[0][0], of_seed[0][0]), (of_seed[0][0], base), (of_seed[0][0], "../../etc/passwd")]
    for left, right in wrong:
        with pytest.raises(BadInput, match="no two pictures"):
            bench.cast_vote(run, "ann", left, right, "left")
    with pytest.raises(BadInput, match="the vote is 'better'"):
        bench.cast_vote(run, "ann", *of_seed[0][:2], "better")
    assert bench.votes(run) == ()


def test_pictures_that_were_deleted_are_not_shown_and_without_two_there_is_no_pair(made: Training) -> None:
    bench = bench_of(made)
    run = run_of(bench)
    with pytest.raises(NotFound, match="no two pictures"):
        bench.next_pair(run, "ann")
    cells = with_grid(bench, run, seeds=1, steps=2)
    bench.next_pair(run, "ann")
    bench.store.cell_path(next(key for key, cell in cells.items() if cell.checkpoint)).unlink()
    with pytest.raises(NotFound, match="no two pictures"):
        bench.next_pair(run, "ann")
    with pytest.raises(NotFound, match="grid-99"):
        bench.next_pair(run, "ann", "grid-99")
