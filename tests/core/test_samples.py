"""At which step a trainer's picture was drawn, and what tells it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cmp.core.curves import LossCurve
from cmp.core.runs import Checkpoint, Setting
from cmp.core.samples import Logged, Sample, Within, apart, from_log, placed, placed_by_time

FILE = Path("/run/sample/x.png")
LOG = Path("/run/events.out.tfevents.1.vm")
LOSS = LossCurve("r", "loss", np.array([10, 20, 30]), np.array([1.0, 0.5, np.nan]), np.array([1000.0, 1100.0, 1200.0]), LOG)


def counted(value: object) -> Setting:
    return Setting(value, "header")


def checkpoint(epoch: int | None, step: int | None) -> Checkpoint:
    return Checkpoint("r", str(step), Path("/run"), "lora", "lora", step=step, epoch=epoch)


def steps(samples: tuple[Sample, ...]) -> list[tuple[int | None, str | None]]:
    return [(sample.step, sample.step_source) for sample in samples]


def test_an_epochs_picture_has_the_step_of_its_checkpoint_before_any_arithmetic() -> None:
    epochs = [Sample(FILE, None, epoch=epoch) for epoch in (1, 2)]
    told = placed(epochs, [checkpoint(1, 7)], {"num_batches_per_epoch": counted(25), "gradient_accumulation_steps": counted(4)})
    assert steps(told) == [(7, "the checkpoint of epoch 1"), (14, "7 steps an epoch, by num_batches_per_epoch")]


def test_two_checkpoints_that_disagree_about_the_length_of_an_epoch_tell_nothing_of_a_third() -> None:
    third = [Sample(FILE, None, epoch=3)]
    assert steps(placed(third, [checkpoint(1, 10), checkpoint(2, 20)], {})) == [(30, "10 steps an epoch, by the checkpoints")]
    assert steps(placed(third, [checkpoint(1, 10), checkpoint(2, 15)], {})) == [(None, None)]
    assert steps(placed(third, [], {"num_batches_per_epoch": counted(True)})) == [(None, None)]


def test_a_step_that_the_name_tells_is_never_replaced() -> None:
    named = Sample(FILE, 500, epoch=1)
    assert placed([named], [checkpoint(1, 7)], {}) == (named,)
    assert placed_by_time([named], {FILE: 1150.0}, LOSS) == (named,)


def test_the_time_of_a_file_counts_only_within_the_log() -> None:
    for when, step in ((999.0, None), (1000.0, 10), (1150.0, 20), (1200.0 + 3600, 30), (1200.0 + 3601, None)):
        (told,) = placed_by_time([Sample(FILE, None)], {FILE: when}, LOSS)
        assert told.step == step and (told.step_source is None) == (step is None)
    backwards = replace(LOSS, wall_times=np.array([1000.0, 900.0, 1200.0]))
    assert placed_by_time([Sample(FILE, None)], {FILE: 1100.0}, backwards)[0].step is None


def test_of_two_pictures_at_one_place_the_later_counts_and_the_earlier_is_not_lost() -> None:
    first, second, third = (Sample(Path(f"/{name}.png"), 4) for name in "abc")
    assert [(s.path.stem, s.image) for s in apart([first, second, third])] == [("a", 2), ("b", 1), ("c", 0)]


def test_what_diffusers_numbers_by_the_epoch_stands_at_the_step_logged_before_it() -> None:
    def logged(tag: str, step: int, reached: int | None) -> Logged:
        return Logged(tag, step, reached, 5.0, 64, 64, Within(0, 9))

    by_epoch, by_step, final, first, prompt = from_log(
        LOG, [logged("validation", 1, 8), logged("validation", 12, 11), logged("test", 1, 12), logged("validation", 0, None),
              logged("a red cat", 3, 8)], {},
    )  # fmt: skip
    assert (by_epoch.step, by_epoch.epoch) == (8, 1) and "numbers it by its epoch, 1" in str(by_epoch.step_source)
    assert (by_step.step, by_step.epoch) == (12, None)
    assert (final.step, final.variant) == (12, "final")
    assert (first.step, prompt.step, prompt.text) == (0, 3, "a red cat")


def test_pictures_that_were_put_side_by_side_are_taken_apart_only_where_they_fit() -> None:
    def tiles(width: int, height: int, count: object) -> list[object]:
        settings = {"num_validation_images": counted(count)}
        told = Logged("validation", 4, 4, 5.0, width, height, Within(0, 9))
        return [(s.image, s.within.tile if s.within else None) for s in from_log(LOG, [told], settings)]

    assert tiles(128, 64, 2) == [(0, (0, 2, 1)), (1, (1, 2, 1))]
    assert len(tiles(512, 128, 9)) == 9, "torch's writer begins a new line after eight"
    assert tiles(127, 64, 2) == [(0, None)] and tiles(64, 64, 10**6) == [(0, None)] and tiles(64, 64, "4") == [(0, None)]


def test_onetrainers_tag_tells_number_and_prompt() -> None:
    (told,) = from_log(LOG, [Logged("sample3 - a cat", 9, 9, 5.0, 8, 8, Within(0, 9))], {})
    assert (told.prompt, told.text, told.step) == (3, "a cat", 9)
