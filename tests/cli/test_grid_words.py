"""What the grid verb says and calls things: copies that tell runs and strengths apart, a sheet that is no picture, modes that exclude."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cmp.cli.drawing import _called
from cmp.core.grids import Cell, Prompt, Sampling
from cmp.core.infotext import plot_pairs, to_infotext
from cmp.core.runs import Checkpoint
from cmp.pictures.files import save_png
from tests.in_process import command
from tests.support import origin_run


def cell(run: str | None, strength: float = 1.0) -> Cell:
    checkpoint = Checkpoint(run, "1500", Path("/r"), "x", "lora") if run else None
    return Cell(checkpoint, Prompt("a shoe"), 5, strength, Sampling())


def test_copies_are_called_by_run_and_strength_only_where_there_are_several() -> None:
    alone = [cell(None), cell("a")]
    assert [_called(one, alone) for one in alone] == ["base-seed5", "1500-seed5"]
    several = [cell(None), cell("x/a"), cell("b"), cell("b", 0.5)]
    names = [_called(one, several) for one in several]
    assert names == ["base-seed5", "x_a-1500-seed5-strength1", "b-1500-seed5-strength1", "b-1500-seed5-strength0.5"]


def test_both_modes_at_once_are_refused(tmp_path: Path) -> None:
    made = origin_run(tmp_path)
    said = command(tmp_path / "home", "--runs", str(made.outputs), "grid", "lora_casual_shoes", "--prompt", "x", "--exact", "--fast")
    assert said.code == 2 and "--exact and --fast" in said.err, said.told


def test_a_sheet_is_told_to_be_one_and_a_picture_without_a_checkpoint_is_not(tmp_path: Path) -> None:
    own = to_infotext(cell(None), (64, 64), "tiny", None, "0.1")
    for name, text in (("sheet", f"{own}, {plot_pairs([('Checkpoint name', ['base model', 'a@1500'])])}"), ("picture", own)):
        save_png(Image.new("RGB", (8, 8)), tmp_path / f"{name}.png", text, {})
    runs = ("--runs", str(origin_run(tmp_path / "t").outputs))
    sheet, picture = (command(tmp_path / "home", *runs, "grid", "--like", str(tmp_path / f"{name}.png")) for name in ("sheet", "picture"))
    assert sheet.code == 2 and "is a sheet of several pictures" in sheet.err and "one of its pictures" in sheet.err, sheet.told
    assert picture.code == 2 and "names no checkpoint of ours" in picture.err, picture.told
