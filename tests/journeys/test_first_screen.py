"""The first screen in a real browser: the pictures that trainers left, as they come, and whatever else bears their names."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.support import Training, origin_run

from .conftest import FULL, Server, start_server
from .watched import Watched

pytestmark = pytest.mark.browser

HOSTILE = ["<img src=x onerror=window.hurt=1>", "${window.hurt=1}", "{{constructor}} `'\"\\", "‮ right to left, " + "long " * 300]


def png(colour: str, side: int = 96) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, "PNG")
    return out.getvalue()


def draw(made: Training, step: int, prompt: int, content: bytes | None = None) -> Path:
    """A picture under the name that kohya's scripts give it."""
    file = made.run / "sample" / f"x_{step:06d}_{prompt:02d}_20261123115343_7.png"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(png("teal") if content is None else content)
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Training]:
    """Two runs with pictures, one without."""
    training = tmp_path_factory.mktemp("training")
    made = {name: origin_run(training, steps=(10, 20), name=name) for name in ("bare", "first", "second")}
    for name in ("first", "second"):
        for prompt in range(len(HOSTILE)):
            draw(made[name], 10, prompt)
        (made[name].run / "sample" / "prompt.txt").write_text("\n".join(HOSTILE), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory, trained: dict[str, Training]) -> Iterator[Server]:
    outputs = str(trained["first"].outputs)
    yield from start_server(tmp_path_factory.mktemp("served"), "--runs", outputs, "serve", "--port", "0")


@pytest.fixture
def own(browser: Any, own_server: Server) -> Iterator[Watched]:
    """The page over these runs. That a picture cannot be shown is told by its cell, and by the browser as well."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(60_000)
    watched = Watched(context.new_page(), own_server)
    yield watched
    assert watched.page.evaluate("window.hurt === undefined")
    context.close()
    assert [told for told in watched.complaints if "/cmp/sample/" not in told and "Failed to load resource" not in told] == []
    assert watched.asked <= {urlsplit(own_server.url).netloc, ""}, "a request left the machine"


def wait_for_pictures(page: Watched, count: int) -> None:
    """Waits for so many pictures, of which those in sight are loaded."""
    page.page.wait_for_function(
        """count => document.querySelectorAll('#samples td[data-state=done]').length === count
          && document.querySelector('#samples td img')?.classList.contains('is-loaded')""",
        arg=count,
    )


def heads(page: Watched, where: str) -> list[str]:
    return page.page.locator(f"#samples {where} .cmp-label").all_inner_texts()


def test_a_new_user_of_the_demo_sees_pictures_first(page: Watched) -> None:
    wait_for_pictures(page, 24)
    page.page.wait_for_function("[...document.querySelectorAll('#runs-table .cmp-strip img')].filter(img => img.naturalWidth).length === 6")
    page.page.locator(".cmp-alerts").evaluate("bar => { bar.style.display = 'none'; }")  # of what other tests have done on this server
    top = page.page.locator("#samples td.cmp-cell").first.bounding_box()
    assert top["y"] + top["height"] < 620, "the first row of pictures stands in the upper two thirds"
    named = page.page.locator("#samples-curve [clip-path]").evaluate_all("nodes => nodes.map(node => node.getAttribute('clip-path'))")
    assert named and all(name.startswith("url(#") for name in named), "the address changes while a curve is shown"
    assert page.row("runs-table", FULL).get_attribute("aria-selected") == "true"
    assert page.page.locator("#runs-table svg.cmp-line polyline").count() == 2
    assert heads(page, "thead th") == ["step 500", "step 1000", "step 1500", "step 2000", "step 2500", "step 3000"]
    assert heads(page, "tbody th")[0] == "a blue casual shoe"
    page.page.wait_for_function("document.querySelector('#samples thead').innerText.includes('train 0.0')")
    page.picture("first_screen")
    address = page.page.locator("#samples td img").first.evaluate("img => img.src")
    assert "immutable" in page.page.request.get(address).headers["cache-control"], "no picture is asked for twice"


def test_a_picture_opens_large_with_its_step_and_file(page: Watched) -> None:
    wait_for_pictures(page, 24)
    page.page.locator("#samples td.cmp-cell img").nth(1).click()
    page.page.wait_for_selector("#samples dialog.cmp-full img.is-loaded")
    told = page.page.locator("#samples dialog.cmp-full").inner_text()
    assert "step 1000" in told and "epoch" in told and "the trainer, while training" in told and ".png" in told
    page.page.keyboard.press("Escape")


def test_the_checkpoint_of_a_picture_is_starred_where_it_is_looked_at(own: Watched, trained: dict[str, Training]) -> None:
    own.row("runs-table", "second").click()
    wait_for_pictures(own, 4)
    made = draw(trained["second"], 15, 0)  # nothing was saved then
    try:
        wait_for_pictures(own, 5)
        own.page.locator("#samples td.cmp-cell").first.click()
        own.page.get_by_role("button", name="☆ Star").click()
        own.page.locator("#samples thead .is-star").wait_for(state="attached")
        own.page.get_by_role("button", name="★ Starred").wait_for()
        own.page.get_by_label("Note on this checkpoint").fill("good <b>hands")
        own.page.keyboard.press("Enter")
        own.page.wait_for_function("document.querySelector('#samples thead .is-star')?.title === 'starred: good <b>hands'")
        own.row("checkpoints-table", "second@10").get_by_text("★").first.wait_for(state="attached")
        # what stands against it is told where it is seen, and not below the full view
        note = own.page.get_by_label("Note on this checkpoint")
        note.evaluate("box => { box.removeAttribute('maxlength'); box.value = 'x'.repeat(2001); }")
        note.dispatch_event("change")
        own.page.locator("#samples .cmp-full-status", has_text="the note has 2001 characters. Use at most 2000.").wait_for()
        own.page.locator("#samples .cmp-full").get_by_role("button", name="Column after").click()
        own.page.wait_for_function("document.querySelector('#samples .cmp-full-title').textContent.startsWith('step 15')")
        assert not own.page.locator("#samples .cmp-star").is_visible()
        assert own.page.locator("#samples .cmp-full").get_by_role("button", name="new seed").count() == 0
        own.page.keyboard.press("Escape")
    finally:
        made.unlink()
    wait_for_pictures(own, 4)


def test_another_run_is_chosen_and_one_without_pictures_says_what_to_do(own: Watched) -> None:
    wait_for_pictures(own, 4)
    own.row("runs-table", "bare").click()
    own.page.get_by_text("The trainer left no pictures in this run.").wait_for()
    assert own.page.locator("#samples-beside").count() == 0, "there is nothing that it could stand beside"
    own.row("runs-table", "second").locator(".cmp-strip-picture").first.click()
    wait_for_pictures(own, 4)
    assert own.page.locator("#samples .cmp-title").inner_text() == "second: drawn by the trainer"


def test_hostile_prompts_stand_on_the_page_as_they_are(own: Watched) -> None:
    wait_for_pictures(own, 4)
    told = own.page.locator("#samples tbody th .cmp-label").evaluate_all("nodes => nodes.map(node => node.textContent)")
    assert told == [prompt.strip() for prompt in HOSTILE]
    own.page.locator("#samples td.cmp-cell img").first.click()
    own.page.wait_for_selector("#samples dialog.cmp-full[open]")
    assert HOSTILE[0] in own.page.locator("#samples dialog.cmp-full").inner_text()
    own.page.keyboard.press("Escape")


def test_runs_stand_beside_each_other_when_that_is_wished_and_are_exported_together(own: Watched) -> None:
    wait_for_pictures(own, 4)
    own.row("runs-table", "first").click()
    own.page.locator("#samples-beside input").click()
    own.page.get_by_role("option", name="second").click()
    wait_for_pictures(own, 8)
    groups = own.page.locator("#samples .cmp-group-row").all_inner_texts()
    assert [text.strip() for text in groups] == ["first", "second"]
    own.page.locator("#samples summary", has_text="Export").click()
    with own.page.expect_download() as coming:
        own.page.get_by_role("menuitem", name="Pictures and a table (ZIP)").click()
    with zipfile.ZipFile(coming.value.path()) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("cells.csv").decode())))
    assert sorted(row["Run"] for row in rows) == ["first"] * 4 + ["second"] * 4


def test_pictures_appear_while_they_are_drawn_and_half_ones_are_shown_when_they_are_whole(
    own: Watched, trained: dict[str, Training]
) -> None:
    own.row("runs-table", "first").click()
    wait_for_pictures(own, 4)
    whole = png("orange", 256)
    made = [draw(trained["first"], 20, 0, whole), draw(trained["first"], 20, 1, whole[: len(whole) // 2])]
    try:
        wait_for_pictures(own, 5)
        assert heads(own, "thead th") == ["step 10", "step 20"]
        own.page.locator("#samples").get_by_text("This image could not be loaded.").wait_for()
        draw(trained["first"], 20, 1, whole)
        wait_for_pictures(own, 6)
        assert own.page.locator("#samples td[data-state=fault]").count() == 0
    finally:
        for file in made:
            file.unlink()
    wait_for_pictures(own, 4)


def test_what_is_no_picture_spoils_its_own_cell_only(own: Watched, trained: dict[str, Training]) -> None:
    own.row("runs-table", "second").click()
    made = [draw(trained["second"], 30, 0, b"<svg onload='window.hurt=1'>"), draw(trained["second"], 30, 1, b"")]
    made.append(draw(trained["second"], 30, 2, png("navy")))
    outside = trained["second"].outputs.parent / "outside.png"
    outside.write_bytes(png("red"))
    link = made[-1].with_name("x_000030_03_20261123115343_7.png")
    link.symlink_to(outside)
    try:
        wait_for_pictures(own, 5)
        own.page.wait_for_function("document.querySelectorAll('#samples td[data-state=fault]').length === 2")
    finally:
        for file in [*made, link]:
            file.unlink()


def test_on_a_narrow_page_a_run_is_a_card_with_its_pictures(browser: Any, own_server: Server) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = Watched(context.new_page(), own_server)
    wait_for_pictures(page, 4)
    # both at once: the table may be told anew at any moment
    page.page.wait_for_function("""() => { const row = document.querySelector('#runs-table tr[data-key="first"]');
        const [card, strip] = [row, row?.querySelector(".cmp-strip")].map((node) => node?.getBoundingClientRect());
        return card && strip?.width && strip.left >= card.left && strip.right <= card.right + 1 && card.width <= 390; }""")
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing moves the page sideways"
    context.close()


def test_on_a_narrow_page_pictures_come_before_the_form_that_draws_them(browser: Any, own_server: Server) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(60_000)
    page = Watched(context.new_page(), own_server).page
    page.get_by_role("tab", name="Compare").click()
    page.locator("#compare-form").wait_for()
    grid, form = (page.locator(name).bounding_box() for name in ("#grid", "#compare-form"))
    assert grid["y"] + grid["height"] <= form["y"] and form["width"] <= 390, (grid, form)
    context.close()


# -- room ------------------------------------------------------------------------------------------------------------------


def seen_at(browser: Any, server: Server, wide: int, high: int) -> Watched:
    context = browser.new_context(viewport={"width": wide, "height": high})
    context.set_default_timeout(60_000)
    return Watched(context.new_page(), server)


@pytest.mark.parametrize("wide", [1920, 2560])
def test_a_wide_screen_is_used_and_what_is_left_of_it_lies_on_both_sides(browser: Any, own_server: Server, wide: int) -> None:
    page = seen_at(browser, own_server, wide, 1000)
    wait_for_pictures(page, 4)
    box = page.page.locator("#runs-table .cmp-box").bounding_box()
    right = page.page.evaluate("document.documentElement.clientWidth") - box["x"] - box["width"]
    assert abs(box["x"] - right) < 4 and box["width"] > min(wide, 2240) - 120
    page.tab("Compare")
    page.page.locator("#grid-column").wait_for()
    grid = page.page.locator("#grid-column").bounding_box()
    assert grid["x"] + grid["width"] > wide - right - 8
    page.page.context.close()


def test_what_can_be_done_with_a_run_without_pictures_is_in_sight_beside_its_checkpoints(browser: Any, own_server: Server) -> None:
    page = seen_at(browser, own_server, 1440, 900)
    wait_for_pictures(page, 4)
    page.row("runs-table", "bare").click()
    page.page.get_by_text("The trainer left no pictures in this run.").wait_for()
    for name in ("Convert", "Names", "Folders"):
        part = page.page.locator("#run-actions button", has_text=name).first
        part.wait_for()
        box = part.bounding_box()
        assert box["y"] + box["height"] <= 900, f"{name} is below the fold"
    table = page.page.locator("#checkpoints-table").bounding_box()
    assert box["x"] > table["x"] + table["width"], "they stand beside the table"
    page.page.context.close()


def test_details_open_right_below_the_checkpoints_and_forms_have_one_height(browser: Any, own_server: Server) -> None:
    page = seen_at(browser, own_server, 1440, 900)
    wait_for_pictures(page, 4)
    page.row("checkpoints-table", "first@10").locator(".cmp-look").click()
    page.page.locator("#details h4", has_text="first@10").wait_for()
    last = page.page.locator("#checkpoints-table tr").last.bounding_box()
    assert page.page.locator("#details h4").bounding_box()["y"] - last["y"] - last["height"] < 60
    for name in ("Names", "Folders"):
        page.page.locator("#run-actions button", has_text=name).first.click()
    for field, buttons in (
        ("display-name", ["save-name"]),
        ("folder", ["folder-add", "folder-remove"]),
        ("base-folder", ["base-folder-add"]),
    ):
        typed = page.page.locator(f"#{field} :is(input, textarea)").first
        typed.wait_for()
        for name in buttons:
            box, beside = page.page.locator(f"#{name}").bounding_box(), typed.bounding_box()
            assert abs(box["height"] - beside["height"]) < 6 and abs(box["y"] - beside["y"]) < 6, name
    page.page.context.close()


def test_the_strip_of_losses_says_what_and_whose_it_is(own: Watched) -> None:
    wait_for_pictures(own, 4)
    own.page.locator("#samples-curve .cmp-panel-title", has_text="training loss, smoothed · first").wait_for()
    own.page.locator("#samples-beside input").click()
    own.page.get_by_role("option", name="second").click()
    own.page.locator("#samples-curve .cmp-legend .cmp-entry").nth(1).wait_for()
    assert own.page.locator("#samples-curve .cmp-panel-title").inner_text() == "training loss, smoothed"


def test_the_list_tells_the_loss_that_the_heads_tell(page: Watched) -> None:
    page.page.wait_for_function("document.querySelector('#samples thead').innerText.includes('train 0.0')")
    head = page.page.locator("#samples thead th", has_text="step 3000").inner_text().split("train ")[1].strip()
    cell = page.row("runs-table", FULL).locator('td[data-column="loss"]')
    assert cell.inner_text().strip() == head
    assert "smoothed" in page.page.locator('#runs-table th[data-column="loss"]').get_attribute("title")


def test_where_base_models_lie_is_said_on_the_page_and_taken_back(own: Watched, trained: dict[str, Training]) -> None:
    wait_for_pictures(own, 4)
    own.row("runs-table", "first").click()
    own.row("checkpoints-table", "first@10").locator(".cmp-look").click()
    own.page.locator("#details", has_text="not on this disk").wait_for()
    own.page.locator("#run-actions button", has_text="Folders").first.click()
    own.page.locator("#base-folder :is(input, textarea)").first.fill(str(trained["first"].bases))
    own.page.click("#base-folder-add")
    own.status("base-folders", str(trained["first"].bases))
    own.page.locator("#details", has_text="recorded by the run").wait_for()
    assert "not on this disk" not in own.page.locator("#details").inner_text()
    own.page.click("#base-folder-remove")
    own.page.locator("#details", has_text="not on this disk").wait_for()
