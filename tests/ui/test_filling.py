"""The Compare tab's form as a grid, and pictures' settings as the form."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.grids import GridSpec, Prompt
from cmp.core.rerolling import rows_of, with_new_seed
from cmp.core.restored import Restored
from cmp.errors import BadInput, NotFound
from cmp.ui.choices import BASE
from cmp.ui.filling import NEVER_DRAWN, Filled, fields_like, fields_locked, line_of, pattern_of, read_grid
from tests.support import bench_of, origin_run

RUN = "lora_casual_shoes"
FILLED = Filled([f"{RUN}@1000", BASE, f"{RUN}@500"], "a shoe --name S\n# not this\na dog --d 7", seeds="1, 2")


def test_the_form_becomes_a_grid_with_the_base_first_and_checkpoints_in_their_order(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    filled = FILLED._replace(
        negative="blur, noise", steps="10-20 (+10)", guidance="", scheduler="ddim, Euler A", size="64x64", mode="exact"
    )
    spec, runs, _ = read_grid(bench, filled)
    assert [c.key if c else None for c in spec.checkpoints] == [None, "500", "1000"] and [run.id for run in runs] == [RUN]
    assert [(p.text, p.negative, p.name) for p in spec.prompts] == [("a shoe", "blur, noise", "S"), ("a dog", "blur, noise", "")]
    assert {(s.steps, s.guidance, s.scheduler, s.width) for s in spec.samplings} == {
        (steps, 7.5, name, 64) for steps in (10, 20) for name in ("DDIM", "Euler a")
    }
    assert spec.mode == "exact" and spec.size == 3 * (2 + 1) * 4, "a prompt with a seed of its own has one"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"picked": []}, "no checkpoint"),
        ({"prompts": " \n# x"}, "no prompt"),
        ({"seeds": "1-"}, "seeds '1-'"),
        ({"steps": "2.5"}, "steps"),
        ({"vae": "/not/here"}, "no VAE at /not/here"),
        ({"stack": "nobody@1"}, "nobody"),
        ({"search_replace": "cat, dog"}, "did not find 'cat'"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(tmp_path: Path, changed: dict, told: str) -> None:
    with pytest.raises((BadInput, NotFound), match=told):
        read_grid(bench_of(origin_run(tmp_path)), FILLED._replace(**changed))


def test_loras_beside_take_their_own_strengths_or_the_fields(tmp_path: Path) -> None:
    spec, runs, _ = read_grid(bench_of(origin_run(tmp_path)), FILLED._replace(stack=f"{RUN}@500\n{RUN}@1000:2", stack_strengths="0, 1"))
    assert [[(one.checkpoint.key, one.strength) for one in stack] for stack in spec.stacks] == [
        [("500", 0.0), ("1000", 2.0)],
        [("500", 1.0), ("1000", 2.0)],
    ]
    assert [run.id for run in runs] == [RUN] * 3


def test_a_random_seed_is_kept_while_the_lock_is_on_and_only_then(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    locked = FILLED._replace(seeds="-1, -1", locked=True)
    first, _, kept = read_grid(bench, locked)
    again, _, still = read_grid(bench, locked._replace(prompts="else", kept=kept))
    assert again.seeds == first.seeds and still == kept and len(first.seeds) == 2
    planned, _, _ = read_grid(bench, locked._replace(kept=kept), planned=True)
    assert planned.seeds == first.seeds, "the plan counts what will be drawn"
    plain, _, unlocked = read_grid(bench, locked._replace(seeds="5", kept=kept))
    assert unlocked == kept and plain.seeds == (5,), "a grid without one loses none"
    other, _, none = read_grid(bench, locked._replace(locked=False, kept=kept))
    assert none == "" and other.seeds != first.seeds
    assert read_grid(bench, locked._replace(locked=False), planned=True)[0].seeds == (NEVER_DRAWN,)


def test_a_new_seed_stays_in_the_form_where_the_lock_is_on() -> None:
    spec = GridSpec((None,), (Prompt("a shoe", name="S"), Prompt("a dog")), (3,))
    changed = rows_of(with_new_seed(spec, rows_of(spec)[1].key, 9, beside=True))
    filled = FILLED._replace(prompts="a shoe --name S\na dog --d 3 --s 4", locked=True)
    assert fields_locked(filled._replace(locked=False), changed) == {}
    assert fields_locked(filled, rows_of(spec)) == {"seeds": "3"}
    assert fields_locked(filled, changed) == {"prompts": "a shoe --name S --d 3\na dog --s 4 --d 3\na dog --s 4 --d 9"}
    assert [line_of(prompt) for prompt in spec.prompts] == ["a shoe --name S", "a dog"]


def test_a_picture_of_ours_comes_back_as_the_form_that_drew_it(tmp_path: Path) -> None:
    bench = bench_of(origin_run(tmp_path))
    found = Restored(
        7, 5, 3.5, 64, 96, "DDIM", 2, source="cmp", prompt="a shoe,\nred", negative='say "hi" || blur',
        checkpoint=f"{RUN}@500", strength=0.5, model="base", loras=((f"{RUN}@1000", 2.0),), not_restored=("odd",),
    )  # fmt: skip
    fields, lost = fields_like(bench, found)
    assert lost == ["odd", "line breaks in the prompt, which are spaces now"] and fields["runs"] == [RUN]
    spec, _, _ = read_grid(bench, Filled(**{k: v for k, v in fields.items() if k != "runs"}))
    (cell,) = spec.cells()
    assert (cell.checkpoint.id, cell.prompt.text, cell.prompt.negative, cell.seed) == (f"{RUN}@500", "a shoe, red", 'say "hi" || blur', 7)
    s = cell.sampling
    assert (s.steps, s.guidance, s.width, s.height, s.scheduler, s.clip_skip) == (5, 3.5, 64, 96, "DDIM", 2)
    assert cell.strength == 0.5 and [(one.checkpoint.key, one.strength) for one in cell.stack] == [("1000", 2.0)]


def test_what_another_program_names_and_is_not_here_is_listed(tmp_path: Path) -> None:
    fields, lost = fields_like(
        bench_of(origin_run(tmp_path)), Restored(source="A1111", prompt="a", vae="/gone", model="dream", loras=(("x", 0.5),))
    )
    assert "picked" not in fields and fields["vae"] == fields["stack"] == ""
    assert [what.split("'")[1] for what in lost] == ["/gone", "dream", "x"]


def test_a_pattern_needs_no_checkpoint(tmp_path: Path) -> None:
    pattern, _ = pattern_of(bench_of(origin_run(tmp_path)), FILLED._replace(picked=[]))
    assert pattern.checkpoints == (None,) and pattern.seeds == (1, 2)


def test_ticks_of_a_run_whose_choices_an_event_does_not_know_yet_are_taken_as_they_are() -> None:
    """Gradio would refuse them with a status of 500, for a picture of another run that is dropped on the form."""
    from cmp.ui.grid_form import picks_in

    assert picks_in(("500", "one@500")).preprocess(["other@1000"]) == ["other@1000"] and picks_in().preprocess(None) == []
    assert picks_in().get_block_name() == "checkboxgroup"
