"""The Compare tab in a real browser: the plan, the jobs, the axes, pictures as settings, new seeds, and a run that grows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from .conftest import FULL, Server
from .watched import Watched

pytestmark = [pytest.mark.browser, pytest.mark.model]

SLOW = "600"  # denoising steps: long enough to be stopped on any machine


def test_plan_axes_seeds_previews_and_kept_pictures(page: Watched, server: Server) -> None:
    compare = _the_tab_with_the_base_and_one_checkpoint(page)
    _the_plan_follows_the_form_and_tells_what_is_drawn_already(compare)
    _previews_are_marked_and_replaced_in_place(compare)
    _a_row_gets_a_new_seed_a_cell_a_row_of_its_own_and_the_lock_keeps_them(compare)
    _axes_of_the_closed_sections_become_rows_and_columns_with_a1111s_labels(compare)
    _kept_pictures_go_only_as_planned(compare, server)


def test_a_grid_is_paused_found_again_and_a_picture_of_it_fills_the_form(page: Watched, server: Server, tmp_path: Path) -> None:
    compare = _the_tab_with_the_base_and_one_checkpoint(page)
    _a_grid_is_cancelled_and_another_paused_found_again_after_a_reload_and_resumed(compare)
    _a_picture_that_is_dropped_fills_the_form(compare, server, tmp_path)


def test_draw_says_at_once_that_it_was_pressed_and_what_was_told_before_comes_back_where_it_comes_to_nothing(page: Watched) -> None:
    compare = _the_tab_with_the_base_and_one_checkpoint(page)
    fill(compare, prompts="a pressed button of a red shoe", seeds="7")
    draw(compare, "done: 2 of 2 cells")
    compare.page.wait_for_timeout(2000)  # until the clock has told the end, and stands still
    held: list[Any] = []
    compare.page.route("**/queue/join*", lambda route: held.append(route))
    compare.page.click("#compare-draw")
    compare.status("compare-status", "Looking which of these can be drawn …")
    while not held:
        compare.page.wait_for_timeout(20)
    compare.page.unroute("**/queue/join*")  # lets go what was held
    compare.status("compare-status", "done: 2 of 2 cells")
    fill(compare, seeds="x")
    compare.page.click("#compare-draw")
    compare.text("'x'")
    compare.status("compare-status", "done: 2 of 2 cells")


def _the_tab_with_the_base_and_one_checkpoint(page: Watched) -> Watched:
    page.row("runs-table", FULL).click()
    page.row("checkpoints-table", f"{FULL}@500").wait_for()
    page.tab("Compare")
    page.page.locator("#compare-checkpoints input").first.wait_for()
    for name in ("1000", "1500", "2000", "2500", "3000"):
        page.page.locator("#compare-checkpoints").get_by_label(name, exact=True).uncheck()
    return page


def fill(page: Watched, **fields: str) -> None:
    for name, text in fields.items():
        page.page.locator(f"#compare-{name.replace('_', '-')} :is(textarea, input)").first.fill(text)


def unfold(page: Watched, name: str) -> None:
    page.page.locator(f"#{name} > button").click()


def rows(page: Watched) -> list[str]:
    heads = page.page.locator("#grid tbody th")
    return [" | ".join(heads.nth(i).locator("span:visible").all_inner_texts()) for i in range(heads.count())]


def draw(page: Watched, wanted: str) -> None:
    page.page.click("#compare-draw")
    page.status("compare-status", wanted)


def _the_plan_follows_the_form_and_tells_what_is_drawn_already(compare: Watched) -> None:
    fill(compare, prompts="a plan of a red shoe", seeds="1, 2")
    compare.status("compare-plan", "4 cells: 4 new")
    fill(compare, seeds="1")
    draw(compare, "done: 2 of 2 cells")
    compare.status("compare-plan", "2 cells: 2 drawn earlier")
    fill(compare, seeds="1-3")
    compare.status("compare-plan", "6 cells: 4 new, 2 drawn earlier · ")
    fill(compare, seeds="1-")
    compare.status("compare-plan", "cannot read '1-'")
    unfold(compare, "compare-question")
    fill(compare, seeds="1", base="cmp-demo/not-here")
    assert "base model, step 500: " in compare.status("compare-plan", "2 cells: 2 cannot be drawn")
    page = compare.page
    unfold(compare, "compare-question")
    page.locator("#compare-base").wait_for(state="hidden")
    fill(compare, seeds="2")
    page.locator("#compare-base").wait_for(state="visible")  # the plan opens what is to be filled in
    told = compare.status("compare-plan", "Name it under “Base model and alpha”: an id, or a folder on this computer.")
    assert "--base" not in told and told.count("cmp-demo/not-here") == 1
    grid = page.url
    page.click("#compare-draw")
    compare.status("compare-status", "Nothing was begun")
    assert page.url == grid and page.locator("#grid td[data-state=fault]").count() == 0
    fill(compare, base="")
    compare.status("compare-plan", "2 cells: 2 new")


def _a_grid_is_cancelled_and_another_paused_found_again_after_a_reload_and_resumed(compare: Watched) -> None:
    page = compare.page
    assert not page.locator("#compare-pause").is_enabled() and not page.locator("#compare-cancel").is_enabled()
    unfold(compare, "compare-sampling")
    fill(compare, prompts="a very slow shoe", steps=SLOW, seeds="-1")
    draw(compare, "denoising")
    page.click("#compare-cancel")
    compare.status("compare-status", "cancelled: 0 of 2")
    page.wait_for_function("document.querySelector('#compare-pause').disabled && document.querySelector('#compare-cancel').disabled")
    fill(compare, steps="150")
    draw(compare, "denoising")
    page.click("#compare-pause")
    compare.status("compare-status", "paused · 1 of 2")
    compare.reload()
    compare.status("compare-status", "paused · 1 of 2")
    assert page.locator("#compare-prompts textarea").input_value() == "a very slow shoe"
    unfold(compare, "compare-sampling")
    assert page.locator("#compare-steps :is(textarea, input)").first.input_value() == "150"
    unfold(compare, "compare-sampling")  # which folds it again
    page.get_by_role("button", name="Resume").click()
    compare.status("compare-status", "done: 2 of 2 cells drawn")


def _axes_of_the_closed_sections_become_rows_and_columns_with_a1111s_labels(compare: Watched) -> None:
    compare.page.locator("#compare-lock input").uncheck()
    unfold(compare, "compare-more")
    fill(compare, prompts="a red shoe --name R", search_replace="red, blue", title="Axes", seeds="0")
    fill(compare, guidance="2, 4", steps="2, 3", strengths="0.5, 1")
    compare.page.get_by_text("base, the base model's own (DDIM)").wait_for()
    compare.page.click("#compare-fill-samplers")
    compare.status("compare-scheduler", "DPM++ 2M Karras")
    fill(compare, scheduler="DDIM, euler")
    draw(compare, "done: 48 of 48 cells")
    assert "R · blue | seed 0 · Steps: 2 · CFG Scale: 4.0 · Sampler: Euler" in rows(compare)
    heads = [
        text.replace("\n", " ").partition(" train ")[0] for text in compare.page.locator("#grid thead th").all_inner_texts() if text.strip()
    ]
    assert heads == ["base model", "step 500 Strength: 0.5", "step 500 Strength: 1"]
    assert compare.page.locator("#grid .cmp-title").inner_text() == "Axes"
    compare.picture("axes")


def _a_row_gets_a_new_seed_a_cell_a_row_of_its_own_and_the_lock_keeps_them(compare: Watched) -> None:
    page = compare.page
    fill(compare, prompts="a red star\na blue star", seeds="-1")
    page.locator("#compare-lock input").check()
    draw(compare, "done: 4 of 4")
    first, second = rows(compare)
    assert first.rpartition(" ")[2] == second.rpartition(" ")[2], "one seed for the whole grid"
    fill(compare, prompts="a red star\na blue circle")
    draw(compare, "done: 4 of 4 cells drawn, 2 of them earlier")
    assert rows(compare)[0] == first, "the lock keeps a random seed"
    page.evaluate("window.kept = document.querySelectorAll('#grid td img')[0]")
    page.locator("#grid .cmp-again").nth(1).click()
    page.wait_for_function("row => document.querySelectorAll('#grid tbody .cmp-sub')[1].innerText !== row", arg=second.rpartition("| ")[2])
    page.get_by_text("The grid as it was is among “Earlier grids”").wait_for()
    compare.status("compare-status", "done: 4 of 4 cells drawn, 2 of them earlier")
    assert rows(compare)[0] == first and rows(compare)[1] != second and page.evaluate("kept.isConnected")
    seed = rows(compare)[1].rpartition(" ")[2]
    assert f"a blue circle --d {seed}" in page.locator("#compare-prompts textarea").input_value()
    page.locator("#grid td.cmp-cell").first.focus()
    page.keyboard.press("r")
    compare.status("compare-status", "done: 6 of 6 cells drawn, 4 of them earlier")
    assert [row.partition(" |")[0] for row in rows(compare)] == ["a red star", "a red star", "a blue circle"]


def _a_picture_that_is_dropped_fills_the_form(compare: Watched, server: Server, tmp_path: Path) -> None:
    page = compare.page
    unfold(compare, "compare-sampling")
    fill(compare, prompts="a dropped red shoe", seeds="76, 77", steps="5", guidance="3.5", negative="blur, noise")
    draw(compare, "done: 4 of 4")
    last = page.locator("#grid td.cmp-cell img").last.evaluate("(image) => new URL(image.src).pathname")
    (cell,) = (server.home / "cells").rglob(f"{Path(last).name.partition('.')[0]}.png")
    compare.reload()
    compare.status("compare-status", "done: 4 of 4")
    unfold(compare, "compare-sampling")
    fill(compare, prompts="else", seeds="1", steps="12", guidance="4", negative="")
    drop(page, cell)
    compare.status("compare-restored", "a picture of this program")
    wanted = {"prompts": "a dropped red shoe", "seeds": "77", "steps": "5", "guidance": "3.5", "negative": "blur, noise"}
    assert {name: page.locator(f"#compare-{name} :is(textarea, input)").first.input_value() for name in wanted} == wanted
    compare.status("compare-plan", "1 cell: 1 drawn earlier")
    file = tmp_path / "prompts.txt"
    file.write_text("# two\na red shoe --d 5\na blue shoe\n")
    drop(page, file)
    compare.status("compare-restored", "2 prompts from the file")
    compare.status("compare-plan", "2 cells")
    file.write_bytes(b"\x00\xff")
    drop(page, file)
    page.get_by_text("neither a picture nor text").wait_for()


def drop(page: Any, file: Path) -> None:
    """Drops a file on the grid, as a hand does."""
    page.evaluate(
        """([name, bytes]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], name));
            const told = { dataTransfer: carried, bubbles: true, cancelable: true };
            const on = document.querySelector("#grid");
            on.dispatchEvent(new DragEvent("dragover", told));
            on.dispatchEvent(new DragEvent("drop", told)); }""",
        [file.name, list(file.read_bytes())],
    )


def _previews_are_marked_and_replaced_in_place(compare: Watched) -> None:
    page = compare.page
    page.locator("#compare-preview input").check()
    unfold(compare, "compare-sampling")
    fill(compare, prompts="a shoe seen twice", steps="30", seeds="1-3")
    page.evaluate("""window.seen = new Set();
        const look = () => document.querySelectorAll('#grid .cmp-mark-corner:not([hidden])').forEach((mark) => seen.add(mark.innerText));
        new MutationObserver(look).observe(document.querySelector('#grid'), { subtree: true, childList: true, attributes: true })""")
    draw(compare, "done: 6 of 6 cells drawn")
    page.wait_for_function("document.querySelectorAll('#grid td img.is-loaded').length === 6")
    assert page.evaluate("[...seen]") == ["preview"], "previews came before"
    assert page.locator("#grid .cmp-mark-corner:visible").count() == 0 and page.locator("#grid .cmp-count").inner_text() == "6 of 6"
    page.locator("#compare-preview input").uncheck()
    fill(compare, steps="12")


def test_a_growing_run_is_watched_and_its_newest_is_drawn_on_request(page: Watched, server: Server) -> None:
    outputs = server.home / "demo" / "training" / "outputs"
    target = outputs / "trained now" / "checkpoints" / "checkpoint-40"
    shutil.copytree(outputs / FULL / "checkpoints" / "checkpoint-500", target)
    try:
        page.row("runs-table", "trained now").click()
        page.row("checkpoints-table", "trained now@40").wait_for()
        page.tab("Compare")
        unfold(page, "compare-question")
        fill(page, prompts="a shoe that grows", alpha="16")
        unfold(page, "compare-watching")
        page.page.click("#compare-newest")
        page.status("compare-status", "done: 1 of 1")
        page.page.locator("#compare-watch input").check()
        page.page.wait_for_function("document.querySelector('#compare-status textarea').value.includes('waiting for the next checkpoint')")
        shutil.copytree(outputs / FULL / "checkpoints" / "checkpoint-1000", target.with_name("checkpoint-60"))
        page.page.wait_for_function("document.querySelector('#grid thead')?.innerText.includes('step 60')", timeout=90_000)
        page.page.locator("#compare-watch input").uncheck()
        page.status("compare-status", "cancelled")
    finally:
        shutil.rmtree(target.parents[1])


def _kept_pictures_go_only_as_planned(compare: Watched, server: Server) -> None:
    unfold(compare, "cells")
    assert "pictures, " in compare.status("cells-size", "picture")
    compare.page.locator("#cells-most :is(input, textarea)").fill("0")
    compare.page.click("#cells-plan")
    compare.status("cells-told", "0 B would stay")
    compare.page.click("#cells-prune")
    compare.status("cells-told", "came free")
    assert not list((server.home / "cells").rglob("*.png"))
    compare.status("cells-size", "0 pictures, 0 B")
