"""A batch of conversions in words: which checkpoints, what it takes, how it went."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.pace import Pace, duration_text, expected_seconds
from cmp.errors import BadInput
from cmp.jobs import Job
from cmp.ui.batches import Order, batch_text, chosen_ids, plan_batch, plan_text
from tests.support import bench_of, origin_run

RUN = "lora_casual_shoes"


def order(which: str = "all", count: float | None = None, form: str = "lora", ticks: str = "", strength: float | None = None) -> Order:
    return Order(ticks, RUN, which, count, form, "", strength, False)


def test_a_batch_is_the_ticked_ones_all_or_every_so_many_steps(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    everything = [f"{RUN}@{step}" for step in (500, 1000, 1500)]
    assert chosen_ids(bench, order())[0] == [c.id for c in bench.library().run(RUN).checkpoints]
    assert chosen_ids(bench, order("every", 1000))[0] == [f"{RUN}@1000"]
    assert chosen_ids(bench, order("ticked", ticks="\n".join(everything[:2])))[0] == everything[:2]
    for count in (0, 2.5, None):
        with pytest.raises(BadInput, match="number"):
            chosen_ids(bench, order("every", count))
    with pytest.raises(BadInput, match="held-out loss"):
        chosen_ids(bench, order("best", 1))


def test_a_plan_tells_sizes_free_space_time_scale_and_what_is_not_possible_once_for_all(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    told = plan_text(plan_batch(bench, order()))
    assert "to convert" in told and "to write" in told and " free" in told and "scale 2" in told
    refused = plan_text(plan_batch(bench, order(form="single")))
    assert refused.count("not possible for 500, 1000") == 1 and f"{RUN}@" not in refused


def test_a_batch_that_has_ended_tells_what_was_made_and_what_was_left_alone(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    batch = plan_batch(bench, order("every", 1000))
    job = Job("convert-1", "", "convert", 1, batch)
    job.items += [item for item in bench.convert_all(batch.due) if not hasattr(item, "what")]
    job.state, job.started, job.ended = "done", 10.0, 12.0
    told = batch_text(job)
    assert told.startswith("done: converted 1, skipped 0, failed 0, total 1, in 2 s") and "1000 → " in told and "✓ " in told
    assert "1 converted already, left as it is" in plan_text(plan_batch(bench, order("every", 1000)))


def test_a_pace_tells_rate_and_time_left_once_it_is_known() -> None:
    assert str(Pace(0, 4_000_000, 3.0)) == "4.0 MB to read and write"
    assert str(Pace(4, 452_000, 5.0)) == "452 kB to read and write" and str(Pace(9_000_000, 10**9, 5.0)) == "1.0 GB to read and write"
    assert str(Pace(1_000_000, 4_000_000, 2.0)) == "1.0 MB of 4.0 MB, 500 kB/s, 6 s left"


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "under 1 s"), (40, "40 s"), (300, "5 min"), (7800, "2 h 10 min")])
def test_a_duration_is_told_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text and expected_seconds([]) == 0
