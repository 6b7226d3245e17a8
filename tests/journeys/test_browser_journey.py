"""The whole journey through the page, in a real browser with real pointer and key events. Screenshots are kept in test-results/."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import FULL, Server
from .watched import Watched

pytestmark = [pytest.mark.browser, pytest.mark.model]

DECODED = """images => images.map(image => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0);
  return { complete: image.complete, pixels: [...pen.getImageData(0, 0, canvas.width, canvas.height).data] };
})"""


def test_the_whole_journey_on_the_demo(page: Watched, server: Server) -> None:
    _runs_are_listed_with_their_checkpoints(page)
    _two_checkpoints_are_converted(page, server)
    _the_loss_is_drawn_with_a_mark_per_checkpoint(page)
    _a_grid_of_three_checkpoints_and_two_prompts_is_drawn(page)
    _a_cell_opens_large_and_moves_with_the_arrow_keys(page)
    _the_trainers_own_pictures_are_shown_without_drawing(page)


def _runs_are_listed_with_their_checkpoints(page: Watched) -> None:
    page.row("runs-table", FULL).click()
    page.page.wait_for_selector(f'#checkpoints-table tr[data-key="{FULL}@500"]')
    keys = page.page.locator("#checkpoints-table tbody tr").evaluate_all("rows => rows.map(row => row.dataset.key)")
    assert keys == [f"{FULL}@{step}" for step in (500, 1000, 1500, 2000, 2500, 3000)], "steps are sorted by number"
    assert page.page.locator("#checkpoints-table tbody img").count() == 6
    page.picture("runs")


def _two_checkpoints_are_converted(page: Watched, server: Server) -> None:
    for step in (500, 1500):
        page.row("checkpoints-table", f"{FULL}@{step}").locator("input").click()
    page.status("convert-plan", "2 to convert")
    assert " free · " in page.status("convert-plan", "scale 2")
    page.page.click("#convert-selected")
    told = page.status("convert-status", "done:")
    assert "converted 2, skipped 0, failed 0, total 2" in told and "all 686 frozen tensors of unet equal" in told
    folder = server.home / "demo" / "training" / "outputs" / FULL / "converted" / "lora"
    assert {file.name for file in folder.iterdir()} == {f"{FULL}-{step}.safetensors" for step in (500, 1500)}
    # asked anew each time: the table is made anew when it changes
    cell = f"document.querySelectorAll('#checkpoints-table tr[data-key=\"{FULL}@500\"] td')[5].innerText"
    page.page.wait_for_function(f"{cell} === 'lora'")
    page.picture("converted")


def _the_loss_is_drawn_with_a_mark_per_checkpoint(page: Watched) -> None:
    page.tab("Curves")
    page.page.wait_for_selector("#curves .main-svg .scatterlayer .trace")
    assert page.page.locator("#curves .scatterlayer .points path").count() >= 6
    before = page.page.locator("#curves .scatterlayer").inner_html()
    page.page.locator("#curves [data-set=logY]").click()
    page.page.wait_for_function("before => document.querySelector('#curves .scatterlayer').innerHTML !== before", arg=before)
    page.picture("curves")


def _a_grid_of_three_checkpoints_and_two_prompts_is_drawn(page: Watched) -> None:
    page.tab("Runs")
    page.row("checkpoints-table", f"{FULL}@3000").locator("input").click()
    page.page.wait_for_timeout(400)  # the tick is told to the server before the next click can use it
    page.page.click("#compare-selected")
    page.page.locator("#compare-prompts textarea").fill("a red casual shoe\na blue casual shoe")
    page.page.click("#compare-draw")
    page.status("compare-status", "done: 8 of 8", seconds=120)
    images = page.page.locator("#grid td img")
    assert images.count() == 8, "base model and three steps, two prompts"
    page.page.wait_for_function("[...document.querySelectorAll('#grid td img')].every(image => image.complete && image.naturalWidth)")
    seen = images.evaluate_all(DECODED)
    colours = [picture["pixels"] for picture in seen]
    assert all(len(set(map(tuple, zip(p[::4], p[1::4], p[2::4], strict=True)))) > 50 for p in colours), "no picture is constant"
    assert len({tuple(p) for p in colours}) == 8, "every column differs"
    labels = page.page.locator("#grid thead th").all_inner_texts()
    assert [text.split("\n")[0] for text in labels if text.strip()] == ["base model", "step 500", "step 1500", "step 3000"]
    page.picture("compare")


def _a_cell_opens_large_and_moves_with_the_arrow_keys(page: Watched) -> None:
    page.page.locator("#grid td img").first.click()
    page.page.wait_for_selector("#grid dialog.cmp-full img")
    first = page.page.locator("#grid dialog.cmp-full").inner_text()
    page.page.keyboard.press("ArrowRight")
    page.page.wait_for_function("before => document.querySelector('#grid dialog.cmp-full').innerText !== before", arg=first)
    assert "step 500" in page.page.locator("#grid dialog.cmp-full").inner_text()
    page.picture("full_view")
    page.page.keyboard.press("Escape")
    page.page.wait_for_selector("#grid dialog.cmp-full", state="hidden")


def _the_trainers_own_pictures_are_shown_without_drawing(page: Watched) -> None:
    page.page.get_by_role("radio", name="drawn by the trainer").click()
    page.page.wait_for_function("document.querySelectorAll('#grid td[data-state=done]').length === 24")
    page.picture("trainer")


def test_a_display_name_is_used_everywhere_and_the_id_stays(page: Watched) -> None:
    page.row("runs-table", FULL).click()
    page.page.get_by_role("button", name="Names").click()
    page.page.locator("#display-name textarea, #display-name input").first.fill("Shoes ${alert(1)} <b>bold</b>")
    page.page.click("#save-name")
    page.page.wait_for_function("document.querySelector('#runs-table').innerText.includes('Shoes ${alert(1)} <b>bold</b>')")
    assert page.row("runs-table", FULL).count() == 1
    page.tab("Curves")
    page.page.wait_for_function("document.querySelector('#curves').innerText.includes('${alert(1)}')")
    page.tab("Runs")
    page.page.locator("#display-name textarea, #display-name input").first.fill("")
    page.page.click("#save-name")
    page.page.wait_for_function("!document.querySelector('#runs-table').innerText.includes('alert(1)')")


def test_a_folder_is_added_and_what_cannot_be_read_is_told(page: Watched, tmp_path: Path) -> None:
    (tmp_path / "nothing here").mkdir()
    page.page.get_by_role("button", name="Folders").click()
    page.page.locator("#folder textarea, #folder input").first.fill(str(tmp_path / "gone"))
    page.page.click("#folder-add")
    page.text("there is no folder")
    page.page.locator("#folder textarea, #folder input").first.fill(str(tmp_path / "nothing here"))
    page.page.click("#folder-add")
    assert "no training run" in page.status("problems", str(tmp_path))
    page.page.click("#folder-remove")
    page.page.wait_for_selector("#problems", state="hidden")


def test_a_new_checkpoint_appears_without_a_restart(page: Watched, server: Server) -> None:
    """Copies a checkpoint under a new step into a run of its own, and waits for the page to show it."""
    import shutil

    source = server.home / "demo" / "training" / "outputs" / FULL / "checkpoints" / "checkpoint-500"
    target = server.home / "demo" / "training" / "outputs" / "growing" / "checkpoints" / "checkpoint-40"
    shutil.copytree(source, target)
    try:
        page.row("runs-table", "growing").wait_for()
        page.row("runs-table", "growing").click()
        page.row("checkpoints-table", "growing@40").wait_for()
        shutil.copytree(source, target.with_name("checkpoint-60"))
        page.row("checkpoints-table", "growing@60").wait_for()
    finally:
        shutil.rmtree(target.parents[1])
    page.row("runs-table", "growing").wait_for(state="detached")


def test_what_was_just_clicked_and_typed_holds_however_slow_the_server_is(page: Watched, server: Server) -> None:
    other = next(run.name for run in (server.home / "demo" / "training" / "outputs").iterdir() if run.name != FULL)
    page.row("runs-table", FULL).click()
    page.row("checkpoints-table", f"{FULL}@500").wait_for()
    slow = page.page.context.new_cdp_session(page.page)
    slow.send("Network.enable")
    slow.send("Network.emulateNetworkConditions", {"offline": False, "latency": 1500, "downloadThroughput": -1, "uploadThroughput": -1})
    page.row("runs-table", other).click()
    page.tab("Compare")
    page.page.locator("#compare-prompts textarea").fill("typed meanwhile")
    page.page.wait_for_function("document.querySelector('#compare-checkpoints input')")
    labels = page.page.locator("#compare-runs .token")
    labels.first.wait_for()
    assert labels.count() == 1
    assert page.page.evaluate("new URL(location).searchParams.getAll('run')") == [other]
    page.page.wait_for_timeout(2000)  # whatever else the server had to say
    assert page.page.locator("#compare-prompts textarea").input_value() == "typed meanwhile"


def test_a_missing_base_is_asked_for(page: Watched, server: Server) -> None:
    """A LoRA whose recorded base is not here: the page says so, opens the question, and draws once it is answered."""
    import shutil

    outputs = server.home / "demo" / "training" / "outputs"
    shutil.copytree(outputs / FULL / "lora_weights", outputs / "orphan" / "lora_weights")
    try:
        page.row("runs-table", "orphan").click()
        page.tab("Compare")
        page.page.get_by_text("No grid of orphan is here").wait_for()  # which takes away what was said of another run's
        page.page.locator("#compare-prompts textarea").fill("a red casual shoe")
        page.page.click("#compare-draw")
        page.status("compare-status", "be drawn")  # at once where the plan is known, or else cell by cell
        page.page.locator("#compare-base textarea, #compare-base input").first.fill("cmp-demo/tiny-shapes")
        page.page.click("#compare-draw")
        page.status("compare-status", "done: 2 of 2 cells")
        page.page.wait_for_function("[...document.querySelectorAll('#grid td img')].filter(image => image.naturalWidth).length === 2")
        page.picture("answered")
    finally:
        shutil.rmtree(outputs / "orphan")


def ticked(page: Watched) -> list[str]:
    return page.page.locator("#compare-checkpoints input:checked").evaluate_all("boxes => boxes.map(box => box.closest('label').innerText)")


def test_comparing_with_nothing_ticked_says_what_it_chose(page: Watched) -> None:
    page.row("runs-table", FULL).click()
    page.row("checkpoints-table", f"{FULL}@500").wait_for()
    page.page.click("#compare-selected")
    page.page.get_by_text("No checkpoint was ticked. Now the base model and 6 checkpoints are.").wait_for()
    page.page.locator("#compare-checkpoints input").first.wait_for()
    assert ticked(page) == ["base model", "500", "1000", "1500", "2000", "2500", "3000"]
    assert "casual shoe" in page.page.locator("#compare-prompts textarea").input_value()


def test_a_mark_on_the_curve_leads_by_keyboard_to_its_checkpoint_beside_the_base(page: Watched) -> None:
    page.row("runs-table", FULL).click()
    page.row("checkpoints-table", f"{FULL}@500").wait_for()
    page.tab("Curves")
    page.page.locator("#curves .cmp-card").first.wait_for()
    page.page.locator("#curves .cmp-mark").first.focus()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    page.page.locator("#curves .cmp-menu [data-action=compare]:focus").wait_for()
    page.page.keyboard.press("Enter")
    page.page.locator("#compare-checkpoints input").first.wait_for()
    assert ticked(page) == ["base model", "1000"]
    page.tab("Runs")
    page.page.locator("#runs-table tbody tr:not(.is-ticked)").click()  # the other run goes along to Compare
    page.page.wait_for_function("document.querySelectorAll('#checkpoints-table tbody img').length === 0")
    page.tab("Compare")
    page.page.wait_for_function("document.querySelectorAll('#compare-checkpoints input:checked').length === 7")


def test_boxes_stand_empty_nowhere_and_the_demo_is_told_where_folders_are_added(page: Watched) -> None:
    page.page.locator("#convert > button").click()
    assert "Tick checkpoints" in page.status("convert-plan", "Tick")
    demo = page.page.get_by_text("This is the bundled demo")
    assert demo.is_visible()
    page.tab("Compare")
    page.page.locator("#compare-draw").wait_for()
    shown = page.page.locator("#compare-status textarea")  # with the last grid of this server, if it has drawn one
    assert not demo.is_visible() and (not shown.is_visible() or shown.input_value())


def test_a_checkpoint_is_told_in_detail_and_the_plan_follows_the_form(page: Watched) -> None:
    page.row("runs-table", FULL).click()
    page.row("checkpoints-table", f"{FULL}@1000").locator(".cmp-look").click()
    details = page.page.locator("#details dl")
    details.wait_for()
    told = details.inner_text()
    for words in (
        "Accelerate dump of a PEFT LoRA",
        "128 modules, rank 8",
        "2 = alpha 16 / rank 8",
        "all 686 frozen tensors equal",
        "✓ pipeline",
    ):
        assert words in told
    page.page.locator("#convert > button").click()
    page.page.locator("#convert-form").wait_for()
    assert page.page.locator("#convert-strength").count() == 0, "a LoRA file has no strength of its own"
    page.page.locator("#convert-form label").nth(2).click()
    page.page.locator("#convert-strength input").wait_for()
    page.page.locator("#convert-which input").click()
    page.page.get_by_role("option", name="every so many steps").click()
    assert "free" in page.status("convert-plan", "3 to convert")
    page.picture("details")


def test_an_unknown_alpha_is_asked_for_and_answered_on_the_page(page: Watched, server: Server) -> None:
    """A LoRA of a run that recorded nothing, in a folder with a name full of traps."""
    import shutil

    outputs = server.home / "demo" / "training" / "outputs"
    name = """asked "one" 🐱 \u200fשלום ${HOME} <b>x</b>"""
    target = outputs / name / "checkpoint-10"
    target.mkdir(parents=True)
    source = next((outputs / "casual_shoes_lr_5e-4").glob("checkpoint-*/pytorch_lora_weights.safetensors"))
    shutil.copyfile(source, target / "pytorch_lora_weights.safetensors")
    try:
        page.page.locator("#runs-table tr", has_text="שלום").first.click()
        page.page.locator("#checkpoints-table .cmp-look", has_text="10").click()
        page.page.wait_for_function("document.querySelector('#details')?.innerText.includes('nothing says which alpha')")
        assert "means scale 1" in page.page.locator("#details").inner_text() and name in page.page.locator("#details h4").inner_text()
        page.page.locator("#answer-alpha :is(input, textarea)").fill("-3")
        page.page.click("#answer-use")
        page.page.get_by_text("It must be a positive number").wait_for()
        page.page.locator("#answer-alpha :is(input, textarea)").fill("8")
        page.page.click("#answer-use")
        page.page.wait_for_function("document.querySelector('#details').innerText.includes('= alpha 8 / rank')")
        page.picture("answered")
    finally:
        shutil.rmtree(outputs / name)
