"""The grid verb: what its options mean, that a picture's settings come back, and that nothing wrong is found out only after drawing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from cmp.cli import app
from cmp.cli.drawing import _draw, _prompts, _tell_plan
from cmp.core.asking import DEMO_GUIDANCE
from cmp.core.grids import Cell, GridPlan, GridSpec, Own, Prompt, Sampling, Tile
from cmp.core.infotext import to_infotext
from cmp.core.progress import Progress
from cmp.core.runs import Checkpoint
from cmp.disk.ready import Answers
from cmp.errors import BadInput, Unreadable
from cmp.pictures.files import save_png
from cmp.pictures.settings import read_settings
from cmp.settings import Settings
from cmp.workbench import Workbench
from tests.journeys.conftest import FULL, Said
from tests.support import Training, origin_run

Verb = Callable[..., Said]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture as it was drawn with a checkpoint of the demo."""
    cell = Cell(Checkpoint(FULL, "500", Path("/r"), "x", "lora"), Prompt("a star", "bad"), 77, 0.5, Sampling(3, 4.0, scheduler="DDIM"))
    tile = Tile(cell, "k", base={"id": "tiny", "proof": "tensors"})
    save_png(Image.new("RGB", (64, 64)), tmp_path / "p.png", to_infotext(cell, (64, 64), "tiny", None, "0.1"), tile.as_json())
    return tmp_path / "p.png"


def test_a_plan_tells_the_values_of_every_axis(cmp: Verb, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("# shoes\na red shoe --s 5 --name red\na hat --d 9 --n blurry, bad\n", encoding="utf-8")
    said = cmp(
        "grid", FULL, "--checkpoints", "500, last 1", "--base-column", "--prompts", str(tmp_path / "prompts.txt"),
        "--negative", "x, y || z", "--search-replace", "shoe, boot", "--seeds", "1, -1", "--strengths", "0.5-1 [2]",
        "--guidance", "4, 7", "--scheduler", "ddim",
        "--stack", f"{FULL}@1000:0, 1", "--title", "T", "--fast", "--dry-run", "--json",
    )  # fmt: skip
    told = said.json
    # (base + 2 checkpoints × 2 strengths) × 2 stacks × (2 texts × 2 negatives × 2 seeds + a hat, once) × 2 guidances
    assert (told["new"], told["reused"], told["faults"]) == (told["cells"], 0, [])
    assert said.code == 0 and told["tiles"] == [] and told["cells"] == 5 * 2 * (2 * 2 * 2 + 1) * 2
    axes = told["axes"]
    assert axes["Checkpoint name"] == ["base model", f"{FULL}@500", f"{FULL}@3000"] and axes["Strength"] == ["0.5", "1"]
    assert axes["Prompt"] == ["a red shoe", "a red boot", "a hat"] and axes["Negative prompt"] == ["x, y", "z", "blurry, bad"]
    assert axes["Steps"] == ["5", "12"] and axes["CFG Scale"] == ["4.0", "7.0"] and len(axes["Seed"]) == 3
    assert axes["LoRAs"] == [f"{FULL}@1000:0", f"{FULL}@1000:1"] and "Sampler" not in axes


def test_a_pictures_settings_come_back_and_what_is_said_wins(cmp: Verb, picture: Path) -> None:
    order = ("grid", "--like", str(picture), "--guidance", "4, 5", "--seeds", "77, 78", "--dry-run", "--json")
    alone = cmp(*order)
    assert alone.code == 0 and alone.json["cells"] == 4 and set(alone.json["axes"]) == {"Seed", "CFG Scale"}
    assert alone.json["not_restored"] == []
    with_run = cmp(*order[:1], FULL, *order[1:], "--checkpoints", "1000, 1500").json
    assert with_run["axes"]["Checkpoint name"] == [f"{FULL}@1000", f"{FULL}@1500"]


def test_what_a_foreign_picture_says_and_cannot_be_drawn_is_told(cmp: Verb, tmp_path: Path) -> None:
    text = "a <lora:dog:0.8>\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64, Model: v1-5, Hires upscale: 2"
    save_png(Image.new("RGB", (8, 8)), tmp_path / "p.png", text, {})
    said = cmp("grid", FULL, "--like", str(tmp_path / "p.png"), "--checkpoints", "500", "--dry-run", "--json")
    told = "; ".join(said.json["not_restored"])
    assert said.code == 0 and "Hires upscale: 2" in told and "'dog' at 0.8" in told and "'v1-5'" in told
    assert said.err.count("not restored from") == len(said.json["not_restored"])


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "no run"),
        ((FULL, "--prompt", "x", "--steps", "5, ten"), 2, "'ten'"),
        ((FULL, "--prompt", "x", "--scheduler", "DDIM, Oiler"), 2, "'Oiler'"),
        ((FULL, "--prompt", "x", "--search-replace", "q, r"), 2, "did not find 'q'"),
        ((FULL, "--prompt", "x", "--checkpoints", "best"), 2, "held-out"),
        ((FULL, "--prompt", "x", "--stack", FULL), 2, "to be stacked"),
        ((FULL, "--prompt", "x", "--stack", "nobody@500:1"), 3, "nobody"),
        ((FULL, "--prompt", "x", "--vae", "/no/such/vae"), 3, "/no/such/vae"),
        ((FULL, "--prompt", "x", "--sheet", "s.gif"), 2, "s.gif"),
        ((FULL, "--prompt", "x", "--html", "s.png"), 2, "s.png"),
        ((FULL, "--prompt", "x", "--animation", "s.mp4"), 2, "s.mp4"),
        ((FULL, "--prompt", "x", "--zip", "s.tar"), 2, "s.tar"),
        ((FULL, "--prompt", "x", "--sheet", "assets/compare.webp"), 5, "assets/compare.webp"),
        ((FULL, "--prompt", "x", "--sheet", "README.md/s.png"), 2, "README.md"),
        ((FULL, "--prompt", "x", "--output", "README.md"), 2, "README.md"),
        ((FULL, "--like", "/no/such.png"), 3, "/no/such.png"),
        ((FULL, "--like", "README.md"), 4, "README.md"),
        ((FULL, "--prompts", "/no/such.txt"), 4, "/no/such.txt"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_drawn(cmp: Verb, arguments: tuple[str, ...], code: int, told: str) -> None:
    said = cmp("grid", *arguments, "--json")
    assert (said.code, said.json["code"]) == (code, code) and told in said.json["error"] and said.json["hint"]


@pytest.mark.model
def test_a_drawn_grid_leads_back_to_itself(cmp: Verb, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(
        json.dumps([{"prompt": "a star", "negative_prompt": "x", "seed": 3, "diffusion_steps": 2, "cfg_scale": 4}])
    )
    order = ("grid", f"{FULL}@500", f"{FULL}@1000", "--prompts", str(tmp_path / "p.json"), "--scheduler", "ddim", "--title", "Stars")
    first = cmp(*order, "--sheet", str(tmp_path / "s.webp"), "--output", str(tmp_path / "o"), "--json")
    assert first.code == 0 and [tile["fault"] for tile in first.json["tiles"]] == [None, None]
    found = read_settings(tmp_path / "s.webp")
    assert (found.prompt, found.negative, found.seed, found.steps, found.scheduler) == ("a star", "x", 3, 2, "DDIM")
    (copied,) = (tmp_path / "o").glob("*-1000-*")
    again = cmp("grid", "--like", str(copied), "--json")
    assert [tile["key"] for tile in again.json["tiles"]] == [first.json["tiles"][1]["key"]] and again.json["tiles"][0]["reused"]


@pytest.mark.model
def test_a_grid_leaves_as_sheet_page_animation_and_archive_and_what_is_there_stays_unless_forced(cmp: Verb, tmp_path: Path) -> None:
    files = {"sheet": "s.png", "html": "g.html", "animation": "a.webp", "zip": "c.zip"}
    wanted = [text for what, name in files.items() for text in (f"--{what}", str(tmp_path / "new" / name))]
    order = ("grid", f"{FULL}@500", f"{FULL}@1000", "--prompt", "a star", "--steps", "2", *wanted, "--json")
    first = cmp(*order)
    assert first.code == 0 and {what: first.json[what] for what in files} == {w: str(tmp_path / "new" / n) for w, n in files.items()}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(files.values()) and first.json["notes"] == []
    before = (tmp_path / "new" / "c.zip").read_bytes()
    again = cmp(*order)
    assert again.code == 5 and "s.png" in again.json["error"] and (tmp_path / "new" / "c.zip").read_bytes() == before
    assert cmp(*order, "--force").code == 0
    with Image.open(tmp_path / "new" / "a.webp") as moving:
        assert moving.n_frames == 2


def test_a_prompt_on_the_command_line_has_the_options_of_a_line_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("# not this\na hat\n", encoding="utf-8")
    found = _prompts(["# a shoe --n bad --d 5", " "], tmp_path / "p.txt")
    assert found == (Prompt("# a shoe", "bad", own=Own(seed=5)), Prompt("a hat"))
    with pytest.raises(BadInput, match="--ar"):  # of another program: drawn as text it would mislead
        _prompts(["a shoe --ar 16:9"], None)


class _Bench:
    """Yields what a workbench yields while it draws: progress, and a preview before its tile."""

    def follow_grid(self, spec: GridSpec, runs: list[Any], given: Answers, ray: str | None) -> Iterator[Tile | Progress]:
        first, second = spec.cells()
        yield Tile(first, "", Path("/small"), seconds=0.1, preview=True)
        for step in range(3):
            yield Progress(step, 4, "drawing")
        yield Tile(second, "b", Path("/b"), seconds=0.2)
        yield Tile(first, "a", Path("/a"), seconds=0.2)


def test_a_preview_is_replaced_and_progress_is_no_tile(capsys: pytest.CaptureFixture[str]) -> None:
    spec = GridSpec((None,), (Prompt("a"),), (1, 2))
    tiles = _draw(_Bench(), spec, [], Answers(), None)  # type: ignore[arg-type]
    assert [(tile.cell.seed, tile.key, tile.preview) for tile in tiles] == [(1, "a", False), (2, "b", False)]
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("drawing") <= 1 and "2/2" in said.err


def test_the_demo_is_drawn_with_its_own_guidance_and_other_runs_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Workbench(Settings(tmp_path / "home"))
    own = given.find(FULL)[0]
    other = given.find(str(origin_run(tmp_path).run))[0]
    assert given.usual_sampling() == given.usual_sampling([own]) == Sampling(guidance=4.0)
    assert given.usual_sampling([other]) == given.usual_sampling([own, other]) == Sampling()
    given.remember_prompts(own, ["a shoe"])
    assert given.pattern(None, own).samplings == (Sampling(guidance=4.0),)
    (tmp_path / "pattern.json").write_text('{"prompts": ["a shoe"], "samplings": [{"steps": 3}, {"guidance": 6}]}')
    assert given.pattern(str(tmp_path / "pattern.json"), own).samplings == (Sampling(3, 4.0), Sampling(guidance=6.0))
    drawn: list[GridSpec] = []
    monkeypatch.setattr(Workbench, "plan_grid", lambda _, spec, *__: drawn.append(spec) or GridPlan(1, 1, 0))
    for target, runs in ((FULL, ()), (str(other.folder), ()), (other.id, ("--runs", str(other.root)))):
        order = [*runs, "grid", target, "--prompt", "x", "--checkpoints", "500", "--dry-run"]
        assert CliRunner().invoke(app, order, env={"CMP_HOME": str(tmp_path / "home")}).exit_code == 0
    assert [spec.samplings for spec in drawn] == [(Sampling(guidance=4.0),), (Sampling(),), (Sampling(),)]


@pytest.mark.parametrize("option", ["--seeds", "--steps", "--guidance", "--size", "--scheduler", "--strengths"])
def test_the_help_tells_what_stands_where_an_axis_is_not_said(option: str) -> None:
    said = " ".join(CliRunner().invoke(app, ["grid", "--help"]).output.split())
    own = said[said.index(f" {option} ") :]
    assert "[default: " in own[: own.index(" --", 3)]


def test_the_help_has_the_defaults_that_are_drawn_with() -> None:
    said = " ".join(CliRunner().invoke(app, ["grid", "--help"]).output.split())
    assert f"[default: {Sampling().steps}]" in said and f"[default: {Sampling().guidance:g}, with the demo {DEMO_GUIDANCE:g}]" in said


@pytest.fixture
def damaged(tmp_path: Path) -> Training:
    """A run of one whole checkpoint, a DeepSpeed folder, and a file that was cut."""
    made = origin_run(tmp_path, (500, 1000), final=False)
    (made.checkpoint(1500)).mkdir()
    (made.checkpoint(1500) / "zero_to_fp32.py").write_text("")
    half = made.checkpoint(1000) / "model.safetensors"
    half.write_bytes(half.read_bytes()[:-100])
    return made


def drawn_with(made: Training, *arguments: str) -> Any:
    place = {"CMP_HOME": str(made.outputs.parent / "home"), "CMP_BASES": str(made.bases), "CMP_DEVICE": "cpu"}
    return CliRunner().invoke(app, ["--runs", str(made.outputs), "grid", *arguments, "--prompt", "x", "--dry-run", "--json"], env=place)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), ["1000", "1500"]),
        (("--checkpoints", "all, SKIP: 1000"), ["1500"]),
        (("--checkpoints", "last 1"), ["1000", "1500"]),
        (("--checkpoints", "500"), []),
    ],
)
def test_a_checkpoint_with_a_flaw_is_passed_over_aloud(damaged: Training, arguments: tuple[str, ...], told: list[str]) -> None:
    said = drawn_with(damaged, "lora_casual_shoes", *arguments)
    found = json.loads(said.stdout)
    assert [one["checkpoint"].rpartition("@")[2] for one in found["passed_over"]] == told and found["cells"] == 1
    for one in found["passed_over"]:
        assert f"passed over: {one['checkpoint']}: {one['why']}" in said.stderr
    assert ("DeepSpeed" in said.stderr, "incomplete" in said.stderr) == ("1500" in told, "1000" in told)


@pytest.mark.parametrize(("arguments", "code"), [(("@1500",), 5), (("@1000",), 4), (("", "--checkpoints", "1500"), 5)])
def test_a_checkpoint_with_a_flaw_that_is_named_fails_with_its_code_also_in_a_plan(
    damaged: Training, arguments: tuple[str, ...], code: int
) -> None:
    said = drawn_with(damaged, f"lora_casual_shoes{arguments[0]}", *arguments[1:])
    assert (said.exit_code, len(json.loads(said.stdout)["faults"])) == (code, 1)


def test_a_plan_of_which_some_cells_cannot_be_drawn_exits_as_the_grid_would(damaged: Training) -> None:
    assert drawn_with(damaged, "lora_casual_shoes", "--checkpoints", "500, 1500").exit_code == 1


@pytest.mark.model
def test_the_same_weights_under_two_names_are_one_new_picture(cmp: Verb, tmp_path: Path, demo_home: Path) -> None:
    file = demo_home / "demo/training/outputs/casual_shoes_lr_5e-4/checkpoint-500/pytorch_lora_weights.safetensors"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(file, tmp_path / name / f"{name}.safetensors")
    files = [str(tmp_path / name / f"{name}.safetensors") for name in ("one", "two")]
    order = ("grid", *files, "--prompt", "a star", "--steps", "2")
    order += ("--base", "cmp-demo/tiny-shapes", "--alpha", "4", "--seeds", "0, 1")
    plan = cmp(*order, "--dry-run", "--json").json
    assert (plan["cells"], plan["new"], plan["same"], plan["reused"]) == (4, 2, 2, 0)
    assert "4 cells: 2 new, 0 drawn before, 2 the same as a new one" in cmp(*order, "--dry-run").out
    drawn = cmp(*order, "--json").json["tiles"]
    assert len({tile["key"] for tile in drawn}) == 2 and sum(tile["reused"] for tile in drawn) == 2
    again = cmp(*order, "--dry-run", "--json").json
    assert (again["new"], again["same"], again["reused"]) == (0, 0, 4)
    assert "1 cell:" in cmp(*order[:2], *order[3:], "--seeds", "0", "--dry-run").out


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "No such file or directory"), (b"caf\xe9", "no text in UTF-8")],
)
def test_prompts_that_cannot_be_read_are_told_in_plain_words(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(Unreadable) as fault:
        _prompts(None, tmp_path / "p.txt")
    assert told in fault.value.message and "Errno" not in fault.value.message and "codec" not in fault.value.message


@pytest.mark.parametrize(("seconds", "told"), [(None, "the first pictures will tell"), (40.0, "about 40 s")])
def test_a_plan_says_how_long_it_takes_or_what_will_tell(capsys: pytest.CaptureFixture[str], seconds: float | None, told: str) -> None:
    spec = GridSpec((None,), (Prompt("a"),))
    _tell_plan(spec, GridPlan(1, 1, 0, seconds=seconds), {}, False)
    assert f"1 cell: 1 new, 0 drawn before, {'how long it takes ' if seconds is None else ''}{told}" in capsys.readouterr().out
    _tell_plan(spec, GridPlan(1, 0, 1, seconds=None), {}, False)
    assert "will tell" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"junk", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDRxx", b"\xff\xd8\xff\xe0\0"])
def test_a_picture_that_is_none_is_told_in_plain_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(Unreadable) as fault:
        read_settings(tmp_path / "p.png")
    said = fault.value.message.removeprefix(str(tmp_path / "p.png"))
    assert said in (" is no PNG, JPEG or WebP", " cannot be read: it is damaged or cut off")


def test_a_pattern_that_is_no_json_is_told_with_its_place(tmp_path: Path) -> None:
    bench = Workbench(Settings(tmp_path / "home"))
    run = bench.find(str(origin_run(tmp_path).run))[0]
    (tmp_path / "p.json").write_text('{"prompts": [\n"a"')
    with pytest.raises(Unreadable, match=r"p\.json is no JSON, in line 2 at character 4$"):
        bench.pattern(str(tmp_path / "p.json"), run)
    with pytest.raises(Unreadable, match=r"none\.json cannot be read: No such file or directory$"):
        bench.pattern(str(tmp_path / "none.json"), run)


class _Watched(_Bench):
    """Tells, at each of its tiles, what the sheet shows by then."""

    def __init__(self, sheet: Path) -> None:
        self.sheet = sheet
        self.shown: list[bool] = []

    def follow_grid(self, *order: object) -> Iterator[Tile | Progress]:
        first, second = (Cell(None, Prompt("a"), seed, 1.0, Sampling()) for seed in (1, 2))
        for cell, preview in ((first, True), (second, True), (first, False), (second, False)):
            path = self.sheet.with_name(f"{cell.seed}{preview}.png")
            Image.new("RGB", (16, 16)).save(path)
            yield Tile(cell, "k", path, preview=preview)
            self.shown.append(self.sheet.exists())


def test_once_all_previews_are_there_the_sheet_shows_them(tmp_path: Path) -> None:
    bench = _Watched(tmp_path / "sheet.png")
    _draw(bench, GridSpec((None,), (Prompt("a"),), (1, 2)), [], Answers(), None, lambda _: bench.sheet.touch())  # type: ignore[arg-type]
    assert bench.shown == [False, True, True, True]


@pytest.mark.parametrize(
    ("options", "slow", "drawn_before"),
    [
        (("--sheet", "s.png"), True, True),
        (("--sheet", "s.png"), False, False),
        ((), True, False),
        (("--sheet", "s.png", "--no-preview"), True, False),
        (("--preview",), False, True),
        (("--sheet", "s.png", "--ray", "local"), True, False),
    ],
)
def test_previews_come_unasked_only_where_a_sheet_shows_them_and_drawing_is_slow(
    demo_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], slow: bool, drawn_before: bool
) -> None:
    seen: list[GridSpec] = []
    monkeypatch.setattr(Workbench, "slow_here", lambda self, run, given: slow)
    monkeypatch.setattr(Workbench, "follow_grid", lambda self, spec, *order: seen.append(spec) or iter(()))
    monkeypatch.setattr("cmp.cli.exporting.Wanted.write", lambda *given: {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMP_HOME", str(demo_home))
    CliRunner().invoke(app, ["grid", FULL, "--prompt", "a", *options], catch_exceptions=False)
    assert [spec.preview for spec in seen] == [drawn_before]
