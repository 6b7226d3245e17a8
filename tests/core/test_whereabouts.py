"""Places are known by their fields, by how they begin, and within sentences; ids, ids of the Hub and addresses are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmp.core.runs import Library, Run, Setting
from cmp.core.whereabouts import NAME, OWN, PLACE, is_place, kind_of, may_hold_places, place_name, told_of, without_paths

FORMS = {
    "file:///srv/A/x": "x",
    "local:/srv/D/y": "y",
    "bob@host:/srv/L/x": "x",
    "smb://bob@nas/J/x": "x",
    r"\\nas\B\x": "x",
    "../../I/x": "x",
    "~bob/M/x": "x",
    "/srv/A/x/": "x",
    r"C:\Users\P\sd": "sd",
    "C:/Users/P/sd": "sd",
    "/K": "K",
    "/mnt/my disk/Q folder/sd, v2: x": "sd, v2: x",
    "/mnt/a b/E/c": "c",
    r"C:\Users\P q\my sd": "my sd",
}
WITH_BLANKS = tuple(form for form in FORMS if " " in form or form == "/K")


@pytest.mark.parametrize("form", FORMS)
def test_of_a_place_only_its_last_part_is_told(form: str) -> None:
    name, quoted = FORMS[form], f"the run recorded {form!r}, which is not on this disk"
    assert is_place(form) and place_name(form) == name and may_hold_places(form)
    if form != "/K":  # what is told of it is all that there is
        assert without_paths(quoted) == f"the run recorded {name!r}, which is not on this disk"
    if form not in WITH_BLANKS:
        assert without_paths(f"no base model: {form.rstrip('/')} is not here") == f"no base model: {name} is not here"


@pytest.mark.parametrize("form", WITH_BLANKS)
def test_places_that_no_pattern_finds_are_cut_where_a_run_recorded_them(form: str) -> None:
    run = Run("a", Path("/r/a"), Path("/r"), "x", base_model=form, settings={"x": Setting({"deep": (f"{form}2",)}, "y")})
    told = told_of(Library((run,)))
    for text, cut in ((form, FORMS[form]), (f"{form}2", f"{FORMS[form]}2"), (form.replace("\\", "\\\\"), FORMS[form])):
        assert told.cut(f"base {text}; resumed", without_paths) == f"base {cut}; resumed"


@pytest.mark.parametrize(
    "text",
    ["owner/name", "stabilityai/stable-diffusion-2-1", "https://example.org/a-/b/c", "hf://owner/name/file", "tiny-sd", "a/b@500", "1/2",
     "sd (new)/outputs/run1", "<img src=x>/outputs/run1", "root~2:a/b"],
)  # fmt: skip
def test_ids_ids_of_the_hub_and_addresses_are_no_places(text: str) -> None:
    assert not is_place(text)
    if text != "sd (new)/outputs/run1" and not text.startswith("<"):
        assert without_paths(f"the base {text} is here") == f"the base {text} is here"


@pytest.mark.parametrize("name", ["sd (new)/outputs/run1", "<img src=x>/outputs/run1", "it's/-/run"])
def test_an_id_that_looks_like_a_path_stays_as_it_is_wherever_it_stands(name: str) -> None:
    told = told_of(Library((Run(name, Path("/r") / name, Path("/r"), "x"),)))
    for text in (name, f"{name}@500", f"of {name}, {name}/checkpoint-5", f"there is no {name!r}"):
        assert told.cut(text, without_paths) == text
    assert told.cut(f"in /mnt/bob/x, {name}", without_paths) == f"in x, {name}"


def test_kinds_of_fields_are_told_by_their_names() -> None:
    assert {kind_of(name) for name in ("id", "run", "aliases", "checkpoint", "export")} == {NAME}
    assert {kind_of(name) for name in ("train_data_dir", "output_dir", "path", "Data folder", "data_root")} == {PLACE}
    assert kind_of("Prompt") == OWN and kind_of("reason") is kind_of("direction") is kind_of(7) is None


def test_long_texts_are_gone_through_once() -> None:
    for text in (
        "a-" * 50_000,
        "a@" * 50_000,
        "/" * 100_000,
        "../" * 50_000,
        "'/a/" * 20_000,
        "\\" * 100_000,
        "x:" * 50_000,
        "/a b" * 30_000,
    ):
        assert isinstance(without_paths(text), str)
