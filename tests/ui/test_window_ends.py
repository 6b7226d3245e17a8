"""Where both ends of a window are found side by side: in a grid of this process, in the trainer's pictures, in what was drawn before."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from cmp.core.grids import GridSpec, Prompt, Sampling
from cmp.core.progress import Progress
from cmp.core.runs import Run
from cmp.settings import Settings
from cmp.ui.window_ends import Beside, found_beside, none_told
from cmp.workbench import Workbench
from tests.journeys.conftest import FULL
from tests.support import finished

pytestmark = pytest.mark.model
PROMPT = "a red shoe"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, demo_home: Path) -> Path:
    """The demo in a home of its own, in which one run has no pictures of its trainer."""
    home = tmp_path_factory.mktemp("ends")
    shutil.copytree(demo_home / "demo", home / "demo")
    return home


def bench_over(home: Path) -> tuple[Workbench, Run]:
    bench = Workbench(Settings(home, device="cpu"))
    return bench, bench.library().run(FULL)


def shown(found: Beside | None) -> list[list[str]]:
    """What the two cells that are opened stand for, axis by axis."""
    assert found is not None
    axes = found.value["axes"]
    return [
        [axis["values"][i]["key"].rpartition("@")[2] for axis, i in zip(axes, at, strict=True) if i is not None]
        for at in found.value["compare"]["cells"]
    ]


def draw(bench: Workbench, run: Run, steps: Sequence[str | None], seed: int = 1) -> None:
    spec = GridSpec(
        tuple(step and run.checkpoint(step) for step in steps), (Prompt(PROMPT),), (seed,), samplings=(Sampling(1),), mode="fast"
    )
    assert not [item.fault for item in bench.follow_grid(spec, [run]) if not isinstance(item, Progress) and item.fault]


def test_the_trainers_pictures_are_opened_where_it_drew_both_and_a_grid_of_both_goes_before(home: Path) -> None:
    bench, run = bench_over(home)
    ends = [run.checkpoint("1000"), run.checkpoint("1500")]
    found = found_beside(bench, run, ends)
    assert found is not None and found.job is None and [key[0] for key in shown(found)] == ["1000", "1500"]
    assert shown(found)[0][1:] == shown(found)[1][1:], "the same prompt and picture"
    draw(bench, run, ["1000"])
    again = found_beside(bench, run, ends)
    assert again is not None and again.job is None, "a grid of one of them shows no pair"
    draw(bench, run, [None, "1000", "1500"])
    found = found_beside(bench, run, ends)
    assert found is not None and found.job is not None and {"1000", "1500"} <= {key for keys in shown(found) for key in keys}
    based = found_beside(bench, run, [None, ends[0]])
    assert based is not None and "base model" in shown(based)[0] and "1000" in shown(based)[1]


def test_what_another_process_drew_is_found_again_and_nothing_is_drawn_for_it(home: Path) -> None:
    bench, run = bench_over(home)
    draw(bench, run, ["500", "2000"], seed=4)
    for folder in (home / "demo").rglob("validation"):
        shutil.rmtree(folder)
    bench, run = bench_over(home)
    assert bench.gallery.samples(run) == ()
    found = found_beside(bench, run, [run.checkpoint("500"), run.checkpoint("2000")])
    assert found is not None and found.job is not None
    assert finished(found.job).state == "done" and all(item.reused for item in found.job.items if not isinstance(item, Progress))
    before = len(bench.jobs.all())
    assert found_beside(bench, run, [run.checkpoint("500"), run.checkpoint("3000")]) is None and len(bench.jobs.all()) == before
    assert found_beside(bench, run, [None, run.checkpoint("3000")]) is None


def test_where_there_is_no_picture_of_both_it_is_said_what_to_do(home: Path) -> None:
    _, run = bench_over(home)
    ends = [run.checkpoint("500"), run.checkpoint("3000")]
    assert "both step 500 and step 3000" in none_told(ends, True) and "press Draw" in none_told(ends, True)
    assert "press Draw" not in none_told([None, ends[0]], False) and "base model and step 500" in none_told([None, ends[0]], False)
