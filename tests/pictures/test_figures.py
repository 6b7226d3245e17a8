from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from cmp.core.curves import LossCurve, Part, merge
from cmp.errors import BadInput, Refused
from cmp.pictures.figures import curve_figure


def curve(values: list[float], run: str = "lora_casual_shoes", tag: str = "loss") -> LossCurve:
    return merge(run, tag, [Part(np.arange(1, len(values) + 1), np.array(values), None, Path("a"))])


def falling(count: int = 300) -> list[float]:
    return (0.1 + np.exp(-np.arange(count) / 100) + np.random.default_rng(0).random(count) / 10).tolist()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def words(path: Path) -> str:
    """The texts of an SVG figure; matplotlib writes each as a comment beside its outlines."""
    ElementTree.parse(path)
    return path.read_text(encoding="utf-8")


def test_a_png_shows_the_curve_in_colour(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    curve_figure([curve(falling())], path)
    image = pixels(path)
    assert image.shape == (780, 1500, 3)
    blue = (abs(image - (0x00, 0x72, 0xB2)).sum(axis=2) < 12).sum()
    assert blue > 1000 and (image[0, 0] == 255).all()


def test_the_same_curves_are_the_same_file(tmp_path: Path) -> None:
    for name in ("one.svg", "other.svg", "one.png", "other.png"):
        curve_figure([curve(falling(300))], tmp_path / name, markers=(100, 200))
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_an_svg_names_run_tag_and_every_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "loss.svg"
    curve_figure([curve(falling(3000))], path, markers=[500, 1500, 3000])
    text = words(path)
    for word in ("lora_casual_shoes", "loss", "step", "500", "1500", "3000", "smoothed 0.9, faint: as logged"):
        assert f"<!-- {word} -->" in text


def test_markers_that_stand_close_keep_their_lines_and_the_last_number(tmp_path: Path) -> None:
    curve_figure([curve(falling(3000))], tmp_path / "loss.svg", markers=range(2801, 3000, 6))
    text = words(tmp_path / "loss.svg")
    assert "<!-- 2999 -->" in text and "<!-- 2993 -->" not in text


def test_the_format_goes_before_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "loss.picture"
    curve_figure([curve(falling())], path, format="PNG")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="'picture'"):
        curve_figure([curve(falling())], path)


def test_several_runs_get_a_legend_and_one_run_does_not(tmp_path: Path) -> None:
    one, two = curve(falling(), "first"), curve(falling(), "second")
    curve_figure([one, two], tmp_path / "two.svg")
    curve_figure([one], tmp_path / "one.svg")
    assert 'id="legend_1"' in words(tmp_path / "two.svg") and "<!-- second -->" in words(tmp_path / "two.svg")
    assert 'id="legend_1"' not in words(tmp_path / "one.svg")


def test_several_tags_of_one_run_are_told_apart_by_tag(tmp_path: Path) -> None:
    curve_figure([curve(falling(), tag="loss"), curve(falling(), tag="loss/validation")], tmp_path / "a.svg")
    assert "<!-- loss/validation -->" in words(tmp_path / "a.svg")


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [[math.nan] * 4, [1.0], [0.5, math.nan, 0.4, math.inf, -math.inf, 0.3], [0.0, -1.0, 0.0], [1e38, 1e-38, 1.0], [2.0] * 9],
)
def test_any_values_are_drawn_without_a_fault_or_a_warning(
    tmp_path: Path, values: list[float], log: bool, recwarn: pytest.WarningsRecorder
) -> None:
    curve_figure([curve(values)], tmp_path / "loss.png", log=log, markers=[2])
    assert (tmp_path / "loss.png").stat().st_size > 5000
    assert [str(warning.message) for warning in recwarn if warning.category is not ResourceWarning] == []


def test_values_that_are_not_finite_and_overwritten_steps_are_explained(tmp_path: Path) -> None:
    whole = Part(np.arange(1, 9), np.array([0.5, math.nan, *[0.4] * 6]), None, Path("a"))
    again = Part(np.arange(5, 7), np.array([0.3, 0.3]), None, Path("b"))
    curve_figure([merge("run", "loss", [whole, again])], tmp_path / "loss.svg")
    text = words(tmp_path / "loss.svg")
    assert "×: not finite" in text and "grey: overwritten by a restart" in text


def test_a_gap_stays_open(tmp_path: Path) -> None:
    curve_figure([curve([0.5] * 100 + [math.nan] * 100 + [0.5] * 100)], tmp_path / "loss.png", smoothing=0)
    blue = abs(pixels(tmp_path / "loss.png")[:600] - (0x00, 0x72, 0xB2)).sum(axis=2) < 12
    drawn = blue.any(axis=0)
    assert drawn[300:450].any() and drawn[1100:1300].any() and not drawn[620:930].any()


def test_a_name_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    curve_figure([curve(falling(), "cost_$5$_\\frac"), curve(falling(), "a$")], tmp_path / "a.svg")
    assert "<!-- cost_$5$_\\frac -->" in words(tmp_path / "a.svg")


def test_a_long_training_makes_no_huge_file(tmp_path: Path) -> None:
    curve_figure([curve(falling(200_000))], tmp_path / "loss.svg")
    assert (tmp_path / "loss.svg").stat().st_size < 1_000_000


@pytest.mark.parametrize("curves", [[], [curve([])]])
def test_nothing_to_draw_is_said_and_writes_nothing(tmp_path: Path, curves: list[LossCurve]) -> None:
    with pytest.raises(BadInput, match="no values"):
        curve_figure(curves, tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


def test_a_fault_leaves_an_older_picture_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    path.write_bytes(b"older")
    with pytest.raises(BadInput, match="smoothing"):
        curve_figure([curve(falling())], path, smoothing=1.5)
    assert path.read_bytes() == b"older"


def test_a_place_that_cannot_be_written_is_refused_and_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"gone/loss\.png"):
        curve_figure([curve(falling())], tmp_path / "gone" / "loss.png")


def test_the_same_curves_give_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        curve_figure([curve(falling())], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_drawing_touches_no_global_state_of_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib; matplotlib.use('agg'); before = dict(matplotlib.rcParams);"
        "from pathlib import Path; import numpy as np;"
        "from cmp.core.curves import Part, merge; from cmp.pictures.figures import curve_figure;"
        "curve_figure([merge('r', 'loss', [Part(np.arange(3), np.ones(3), None, Path('a'))])], Path(sys.argv[1]));"
        "print('matplotlib.pyplot' in sys.modules, dict(matplotlib.rcParams) == before)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    assert subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout == "False True\n"
