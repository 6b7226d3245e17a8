"""Names of weights files: what a trainer writes is read back, and any other text is no stage and no fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp.core.stages import FINAL, FileName, read_file_name, to_stage

NAMES = st.from_regex(r"[A-Za-zäéλ][ A-Za-z0-9äéλ_.$'-]{0,20}[A-Za-zé]", fullmatch=True).filter(
    lambda name: read_file_name(name).series == name
)
STEPS = st.integers(0, 10**8 - 1)
EPOCHS = st.integers(0, 99_999)


@pytest.mark.parametrize(
    ("stem", "series", "key", "step", "epoch", "trainer"),
    [
        ("sks_cat-step00000500", "sks_cat", "500", 500, None, "kohya"),
        ("sks_cat-000010", "sks_cat", "epoch-10", None, 10, "kohya"),
        ("sks_cat", "sks_cat", "final", None, None, None),
        ("at-step00000500", "", "500", 500, None, "kohya"),
        ("epoch-000010", "", "epoch-10", None, 10, "kohya"),
        ("last", "", "final", None, None, None),
        ("my_flux_lora_000000002", "my_flux_lora", "2", 2, None, "ai-toolkit"),
        ("2026-11-23_12-04-00-save-4-1-0", "", "4", 4, 1, "onetrainer"),
        ("cat 2026-11-23_12-04-00-save-40-2-7", "cat", "40", 40, 2, "onetrainer"),
        ("2026-11-23_12-04-00-backup-4-1-0", "", "4", 4, 1, "onetrainer"),
        ("learned_embeds-steps-200", "learned_embeds", "200", 200, None, None),
        ("checkpoint-500", "", "500", 500, None, None),
        ("unet_checkpoint-500", "unet", "500", 500, None, None),
        ("checkpoint_3", "", "save-3", None, None, None),
        ("step_500", "", "500", 500, None, None),
        ("lora_global_step_500", "", "500", 500, None, None),
        ("epoch=3-step=1500", "", "1500", 1500, 3, None),
        ("lora_weight_e3_s1500", "lora_weight", "1500", 1500, 3, None),
        ("shoes_epoch_3", "shoes", "epoch-3", None, 3, None),
    ],
)
def test_the_names_that_trainers_write_are_read(
    stem: str, series: str, key: str, step: int | None, epoch: int | None, trainer: str | None
) -> None:
    read = read_file_name(stem)
    assert (read.series, read.stage.key, read.stage.step, read.stage.epoch, read.trainer) == (series, key, step, epoch, trainer)


@pytest.mark.parametrize(
    "stem",
    [
        "style-64", "style-2024", "style-202401", "style_v2", "v1-5", "cat-step٣", "cat-step0000000٣", "step_1_000", "cat-٠٠٠٠١٠", "footstep5",
        "step", "step_", "epoch", "step_" + "9" * 19, "cat-step-5.5", "", ".", "step_5 ", "step_5\n",
    ],
)  # fmt: skip
def test_what_may_mean_anything_is_no_stage(stem: str) -> None:
    assert read_file_name(stem).stage == FINAL


@given(st.text(max_size=60))
def test_no_name_makes_the_reading_fail(stem: str) -> None:
    read = read_file_name(stem)
    assert read.stage.step is None or str(read.stage.step) == read.stage.key
    assert stem.startswith(read.series)


@given(
    st.sampled_from(["cat", "x-step", "a_e1", "2026-11-23_12-04-00-save", "checkpoint", ""]), st.text("0123456789-_=step٣. ", max_size=24)
)
def test_no_name_that_nearly_is_one_makes_the_reading_fail(start: str, rest: str) -> None:
    stage = read_file_name(start + rest).stage
    assert stage == FINAL or (start + rest).isascii()


@given(NAMES, STEPS, EPOCHS)
def test_what_a_trainer_would_write_is_read_back(name: str, step: int, epoch: int) -> None:
    assert read_file_name(f"{name}-step{step:08d}") == FileName(name, to_stage(step), "kohya")
    assert read_file_name(f"{name}-{epoch:06d}") == FileName(name, to_stage(None, epoch), "kohya")
    assert read_file_name(f"{name}_{step:09d}") == FileName(name, to_stage(step), "ai-toolkit")
    assert read_file_name(f"{name}2026-01-02_03-04-05-save-{step}-{epoch}-0") == FileName(name, to_stage(step, epoch), "onetrainer")
    assert read_file_name(f"{name}-step-{step}").stage == to_stage(step)


def test_a_stage_is_called_after_the_best_that_is_known_of_it() -> None:
    assert [to_stage(5, 1, 2).key, to_stage(None, 1, 2).key, to_stage(None, None, 2).key, to_stage(None).key] == [
        "5",
        "epoch-1",
        "save-2",
        "final",
    ]
